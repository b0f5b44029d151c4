"""The hardware's identity: stable for one machine, another for any other."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import fields, replace
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.machine.fingerprint import Fingerprint

MACHINE = Fingerprint(
    "Linux", "x86_64", "AMD EPYC 9B14", "family 25 model 17 stepping 1", 8, 4, ("NVIDIA H200 140 GiB", "other")
)
CHANGED: dict[str, Any] = {
    "system": "Windows",
    "architecture": "arm64",
    "cpu": "AMD EPYC 9B15",
    "cpu_model": "family 25 model 17 stepping 2",
    "cores": 9,
    "physical_cores": 8,
    "gpus": ("NVIDIA H200 140 GiB",),
}


def test_the_id_is_readable_and_never_changes() -> None:
    # A golden value: with another id nobody finds the baseline that is in git.
    assert MACHINE.id == "amd-epyc-9b14-8-cores-nvidia-h200-140-gib-linux-d5ba819f"


def test_every_field_makes_another_id_and_shows_in_the_differences() -> None:
    assert set(CHANGED) == {field.name for field in fields(Fingerprint)}
    ids = {MACHINE.id}
    for name, value in CHANGED.items():
        other = replace(MACHINE, **{name: value})
        ids.add(other.id)
        assert MACHINE.differences(other) == {name: (getattr(MACHINE, name), value)}
        assert other.differences(MACHINE) == {name: (value, getattr(MACHINE, name))}
    assert len(ids) == len(CHANGED) + 1


def test_a_machine_differs_from_itself_in_nothing() -> None:
    assert MACHINE.differences(replace(MACHINE)) == {}


TEXT = st.text(max_size=20)


@given(
    st.builds(Fingerprint, TEXT, TEXT, TEXT, TEXT, st.integers(1, 999), st.integers(1, 999), st.tuples(TEXT)),
)
def test_an_id_is_a_file_name_everywhere(machine: Fingerprint) -> None:
    assert re.fullmatch(r"[a-z0-9-]+-[0-9a-f]{8}", machine.id)


def test_order_of_gpus_counts() -> None:
    assert replace(MACHINE, gpus=MACHINE.gpus[::-1]).id != MACHINE.id


def test_this_machine_is_the_same_twice() -> None:
    here = fingerprint.read()
    assert here == fingerprint.read()
    assert here.cpu
    assert not re.search(r"[GM]Hz", here.cpu)
    assert here.gpus == fingerprint.nvidia_gpus()
    assert 1 <= here.physical_cores <= here.cores <= (os.cpu_count() or 1)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone lets a process be kept to some cores in this way")
def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 3, 5})
    assert fingerprint.cores() == 3
    monkeypatch.setattr(psutil, "cpu_count", lambda *, logical: 64 if logical else 32)
    assert fingerprint.physical_cores() == 3
    monkeypatch.setattr(psutil, "cpu_count", lambda *, logical: 4 if logical else 2)
    assert fingerprint.physical_cores() == 2
    monkeypatch.setattr(psutil, "cpu_count", lambda *, logical: None if not logical else 4)  # as in some containers
    assert fingerprint.physical_cores() == 3


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (
            {"brand_raw": "Intel(R) Xeon(R) CPU @ 2.20GHz", "family": 6, "model": 79, "stepping": 0},
            ("Intel(R) Xeon(R) CPU", "family 6 model 79 stepping 0"),
        ),
        ({"brand_raw": "Intel(R) Atom(TM) @ 800 MHz"}, ("Intel(R) Atom(TM)", "")),
        ({"brand_raw": "Apple M3 Max"}, ("Apple M3 Max", "")),
        ({"brand_raw": "AMD EPYC", "family": 25, "model": 17}, ("AMD EPYC", "family 25 model 17")),
    ],
)
def test_a_processors_rated_clock_is_not_its_name(
    info: dict[str, Any], expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cpuinfo

    monkeypatch.setattr(cpuinfo, "get_cpu_info", lambda: info)
    assert fingerprint._processor() == expected
    read = fingerprint.read()
    assert (read.cpu, read.cpu_model) == expected


def test_a_processor_without_a_name_is_called_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    import platform

    import cpuinfo

    monkeypatch.setattr(cpuinfo, "get_cpu_info", dict)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert fingerprint._processor() == ("unknown processor", "")
