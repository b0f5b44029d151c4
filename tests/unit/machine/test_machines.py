"""Machines that others have: what their systems say of their processors, from recordings that name their sources."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cpuinfo
import cpuinfo.cpuinfo as parsers
import pynvml
import pytest

from pytest_rwkvperf.machine import fingerprint, nvml
from pytest_rwkvperf.machine.fingerprint import Fingerprint
from tests.unit.machine.recorded import RECORDINGS

if TYPE_CHECKING:
    from pathlib import Path

RECORDED: dict[str, dict[str, Any]] = {
    one["name"]: one["answers"] for one in json.loads((RECORDINGS / "processors.json").read_text(encoding="utf-8"))
}

EXPECTED = {
    "amd-linux": ("AMD Ryzen 7 2700X Eight-Core Processor", "family 23 model 8 stepping 2"),
    "intel-linux": ("Intel(R) Pentium(R) CPU G640", "family 6 model 42 stepping 7"),
    "h200-guest": ("Intel(R) Xeon(R) Processor", "family 6 model 207 stepping 2"),
    "arm64-odroid-c2": ("unknown processor", "implementer 0x41 part 0xd03"),
    "arm64-server": ("unknown processor", "implementer 0x43 part 0x0a1"),
    "arm32-odroid-xu3": ("ARMv7 Processor rev 3 (v7l)", "implementer 0x41 part 0xc07, implementer 0x41 part 0xc0f"),
    "raspberry-pi": ("ARMv6-compatible processor rev 7 (v6l)", "implementer 0x41 part 0xb76"),
    "power": ("POWER8E (raw), altivec supported", ""),
    "riscv": ("sifive,u74-mc", ""),
    "s390x": ("unknown processor", "machine 2827"),
    "loongarch": ("Loongson-3A5000", ""),
    "macos-intel": ("Intel(R) Core(TM) i5-2557M CPU", "family 6 model 42 stepping 7"),
    "apple-m1": ("Apple M1", ""),
    "windows-intel": ("Intel(R) Core(TM) i5-4300U CPU", "family 6 model 69 stepping 1"),
    "windows-amd": ("AMD Ryzen 7 2700X Eight-Core Processor", "family 23 model 8 stepping 2"),
    "freebsd": ("Intel(R) Pentium(R) CPU G640", "family 6 model 42 stepping 7"),
}


def source(answers: dict[str, Any]) -> type:
    """py-cpuinfo's own source of data, answering as a recorded machine did."""
    told: dict[str, Any] = {
        name: staticmethod(lambda: False) for name in dir(parsers.DataSource) if name.startswith("has_")
    }
    plain = {
        "bits": "64bit",
        "cpu_count": 1,
        "is_windows": False,
        "uname_string_raw": "",
        **answers,
        "can_cpuid": False,
    }
    for name, value in plain.items():
        given = tuple(value) if isinstance(value, list) else value
        asked = callable(getattr(parsers.DataSource, name, None))
        told[name] = staticmethod(lambda given=given: given) if asked else given
    return type("Recorded", (), told)


@pytest.fixture(params=EXPECTED)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    answers = RECORDED[request.param]
    monkeypatch.setattr(parsers, "DataSource", source(answers))
    monkeypatch.setattr(cpuinfo, "get_cpu_info", parsers._get_cpu_info_internal)
    monkeypatch.setattr(platform, "processor", lambda: "")
    text = tmp_path / "cpuinfo"
    if "cat_proc_cpuinfo" in answers:
        text.write_text(answers["cat_proc_cpuinfo"][1])
    monkeypatch.setattr(fingerprint, "_CPUINFO", text)
    return str(request.param)


def test_every_recording_is_expected() -> None:
    assert set(RECORDED) == set(EXPECTED)
    assert len(RECORDED) >= 12


def test_a_processor_has_a_name_or_numbers(name: str) -> None:
    assert fingerprint._processor() == EXPECTED[name]


def test_only_the_same_processors_share_an_identity() -> None:
    ids: dict[str, set[str]] = {}
    for name, (processor, numbers) in EXPECTED.items():
        ids.setdefault(Fingerprint("Linux", "any", processor, numbers, 4, 4).id, set()).add(name)
    shared = {frozenset(names) for names in ids.values() if len(names) > 1}
    assert shared == {frozenset({"amd-linux", "windows-amd"}), frozenset({"intel-linux", "freebsd"})}


@pytest.mark.parametrize(
    ("quota", "there", "cores"), [(None, 16, 16), (2.0, 16, 2), (1.5, 16, 2), (0.1, 16, 1), (64.0, 16, 16)]
)
def test_a_containers_quota_is_its_cores(
    quota: float | None, there: int, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(there)), raising=False)
    monkeypatch.setattr(fingerprint, "quota_cpus", lambda: quota)
    assert fingerprint.cores() == cores


def played(monkeypatch: pytest.MonkeyPatch, gpus: list[dict[str, Any]]) -> tuple[str, ...]:
    """What the fingerprint has of GPUs: name, GiB, whether they can be divided, and the parts they are divided into."""

    def memory(gpu: dict[str, Any]) -> SimpleNamespace:
        if gpu["gib"] is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(total=gpu["gib"] * 2**30)

    def mode(gpu: dict[str, Any]) -> list[int]:
        if gpu.get("mig") is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(gpu["mig"])] * 2

    def part(gpu: dict[str, Any], index: int) -> dict[str, Any]:
        if index >= len(gpu["parts"]):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return {"gib": gpu["parts"][index]}

    def handle(index: int) -> dict[str, Any]:
        if gpus[index] is LOST:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return gpus[index]

    for name, answer in {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(gpus),
        "nvmlDeviceGetHandleByIndex": handle,
        "nvmlDeviceGetName": lambda gpu: gpu["name"],
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetMigMode": mode,
        "nvmlDeviceGetMaxMigDeviceCount": lambda _gpu: 7,
        "nvmlDeviceGetMigDeviceHandleByIndex": part,
    }.items():
        monkeypatch.setattr(pynvml, name, answer)
    return fingerprint.nvidia_gpus()


# Names and memory as nvidia-smi gives them; the parts of an A100 are those of NVIDIA's MIG User Guide.
GAMING = {"name": "NVIDIA GeForce RTX 4090", "gib": 23.99}
H200 = {"name": "NVIDIA H200", "gib": 140.4, "mig": False}
SHARING = {"name": "NVIDIA GB10", "gib": None, "mig": None}
LOST: dict[str, Any] = {}
A100 = {"name": "NVIDIA A100-SXM4-40GB", "gib": 40, "mig": True, "parts": [20, 5, 5]}


def test_gpus_count_by_name_memory_number_and_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert played(monkeypatch, [GAMING]) == ("NVIDIA GeForce RTX 4090 24 GiB",)
    assert played(monkeypatch, [SHARING]) == ("NVIDIA GB10",)
    assert played(monkeypatch, [H200]) == ("NVIDIA H200 140 GiB",)
    assert played(monkeypatch, [H200, H200]) == ("NVIDIA H200 140 GiB",) * 2
    assert played(monkeypatch, [A100]) == ("NVIDIA A100-SXM4-40GB 40 GiB MIG 20 GiB + 5 GiB + 5 GiB",)
    assert played(monkeypatch, [{**A100, "parts": []}]) == ("NVIDIA A100-SXM4-40GB 40 GiB MIG undivided",)


def test_a_divided_gpu_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Fingerprint("Linux", "x86_64", "AMD EPYC", "", 8, 8, played(monkeypatch, [{**A100, "mig": False}]))
    assert whole.id != replace(whole, gpus=played(monkeypatch, [A100])).id


def test_a_gpu_that_does_not_answer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert played(monkeypatch, [LOST, H200]) == ("NVIDIA H200 140 GiB",)
    with nvml.gpus() as found:
        assert len(found) == 1
