"""The engines' own programs: stand-ins that print what the real ones printed, and ones that fail."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.backends import batched_bench, executables, registry
from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.core.engine import Device, OpenRequest
from pytest_rwkvperf.core.errors import BackendError, DeviceError, OptionError
from pytest_rwkvperf.worker import native
from pytest_rwkvperf.worker.parent import QUICK_SECONDS, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

THEIRS = Path(__file__).parents[1] / "reports" / "llama_bench"
WORKLOADS = [Workload("prefill", 64), Workload("generation", 16)]
TABLE = (Path(__file__).with_name("web_rwkv_bench.txt")).read_text(encoding="utf-8")
"""What web-rwkv 0.10.20's `bench` printed: its stdout, then its stderr."""


def silent(_sentence: str, _fraction: float) -> None:
    """Progress nobody needs."""


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., str]:
    """Make a program that notes its arguments and prints texts."""

    def make(
        name: str, out: str = "", err: str = "", status: int = 0, version: str = "", *, unknown: tuple[str, ...] = ()
    ) -> str:
        path = tmp_path / name
        path.write_text(
            f"#!{sys.executable}\nimport json, sys\n"
            f"for option in {unknown!r}:\n"
            f"    if option in sys.argv: sys.exit('error: invalid parameter for argument: ' + option)\n"
            f"if '--version' in sys.argv:\n    print({version!r}); sys.exit(0)\n"
            f"if '--list-devices' in sys.argv:\n"
            f"    print('Available devices:\\n  CUDA0: NVIDIA H200 (143771 MiB, 140000 MiB free)'); sys.exit(0)\n"
            f"open({str(tmp_path / 'arguments')!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
            f"sys.stdout.write({out!r}); sys.stderr.write({err!r}); sys.exit({status})\n",
            encoding="utf-8",
        )
        path.chmod(0o755)
        return str(path)

    return make


def called(tmp_path: Path) -> list[list[str]]:
    return [json.loads(line) for line in (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()]


def request(device: str, quant: str = "f16", chunk: int = 512) -> OpenRequest:
    return OpenRequest(Path("model.gguf"), quant, device, 2, chunk)


def five(text: str) -> str:
    """Its recorded three repetitions as five."""
    return re.sub(r'"samples_ns": \[ (\d+), (\d+), (\d+) \]', r'"samples_ns": [ \1, \2, \3, \1, \2 ]', text)


# llama-batched-bench


def batched_line(prompt: int, generated: int, sequences: int, prefill: str, generation: str) -> str:
    """A line as the program prints it, with these seconds."""
    return (
        '{"n_kv_max": 2048, "n_batch": 2048, "n_ubatch": 512, "flash_attn": -1, "is_pp_shared": 0, '
        f'"n_gpu_layers": 0, "n_threads": 2, "n_threads_batch": 2, "pp": {prompt}, "tg": {generated}, '
        f'"pl": {sequences}, "n_kv": 9, "t_pp": {prefill}, "speed_pp": -nan, "t_tg": {generation}, "speed_tg": inf, '
        '"t": 0.1, "speed": 5.0}\n'
    )


def test_a_number_of_sequences_is_measured_five_times(program: Callable[..., str], tmp_path: Path) -> None:
    lines = [batched_line(0, 16, count, "0.000000", f"0.{count}0000{n}") for count in (1, 8) for n in range(5)]
    path = program("llama-batched-bench", "\n" + "".join(lines) + "\n\nllama_perf_context_print: load time = 1 ms\n")
    both = [Workload("generation", 16), Workload("generation", 16, 0, 8)]
    taken = batched_bench.LlamaBatchedBench(path=path).open(request("cpu")).bench(both, silent)
    assert [sample.nanoseconds for sample in taken.samples["tg16"]] == [100_000_000 + 1000 * n for n in range(5)]
    assert [sample.nanoseconds for sample in taken.samples["tg16@b8"]] == [800_000_000 + 1000 * n for n in range(5)]
    (arguments,) = called(tmp_path)
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert options == {
        "-m": "model.gguf", "-c": "2048", "-b": "2048", "-ub": "512", "-t": "2", "-ngl": "0", "-dev": "none",
        "-npp": "0", "-ntg": "16", "-npl": "1,1,1,1,1,8,8,8,8,8", "--output-format": "jsonl",
    }  # fmt: skip


def test_prefills_generations_and_depths_are_invocations_of_their_own(
    program: Callable[..., str], tmp_path: Path
) -> None:
    path = program("llama-batched-bench", "")
    own = {"mmap": "off", "repack": "off", "ubatch": "64", "n-gpu-layers": "3", "flash-attn": "on"}
    opened = batched_bench.LlamaBatchedBench(path=path).open(replace(request("cuda:0"), settings=own))
    workloads = [Workload("prefill", 300, 0, 4), Workload("generation", 8, 0, 4), Workload("generation", 8, 64, 4)]
    with pytest.raises(BackendError, match="did not print 5 samples of pp300@b4, tg8@b4, tg8@d64@b4; run it by hand"):
        opened.bench(workloads, silent)
    calls = called(tmp_path)
    assert [(call[call.index("-npp") + 1], call[call.index("-ntg") + 1]) for call in calls] == [
        ("300", "0"),
        ("0", "8"),
        ("64", "8"),
    ]
    first = calls[0]
    assert [first[first.index(name) + 1] for name in ("-c", "-b", "-ub", "-ngl", "-dev")] == [
        "2048", "512", "64", "3", "CUDA0",
    ]  # fmt: skip
    assert first[-5:] == ["-fa", "on", "-lm", "none", "--no-repack"]


def test_what_llama_batched_bench_does_not_obey_is_refused() -> None:
    refused = [setting.name for setting in batched_bench.LlamaBatchedBench().settings if setting.refused]
    assert {"poll", "prio", "cpu-mask"} <= set(refused)


def test_llama_batched_bench_measures_batches_and_no_prefill_at_a_depth() -> None:
    taken = ("pp512", "pp512@b8", "tg128@b8", "tg128@d512@b8")
    assert all(native.supported("llama-batched-bench", Workload.parse(name)) for name in taken)
    assert not native.supported("llama-batched-bench", Workload.parse("pp512@d64@b8"))
    assert not native.supported("llama-bench", Workload.parse("pp512@b8"))


# llama-bench


def test_llama_bench_output_is_read(program: Callable[..., str], tmp_path: Path) -> None:
    path = program("llama-bench", five((THEIRS / "theirs.jsonl").read_text(encoding="utf-8")))
    taken = executables.LlamaBench(path=path).open(request("cpu")).bench(WORKLOADS, silent)
    assert [sample.nanoseconds for sample in taken.samples["pp64"]] == [
        17241669,
        15883410,
        28770440,
        17241669,
        15883410,
    ]
    assert len(taken.samples["tg16"]) == 5
    assert taken.versions == {"build": "0c1e570 (1)", "backends": "CPU", "cpu_info": "AMD EPYC"}
    (arguments,) = called(tmp_path)
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert options == {
        "-m": "model.gguf", "-p": "64", "-n": "16", "-r": "5", "-t": "2", "-ub": "512", "-b": "2048",
        "-ngl": "0", "-dev": "none", "-o": "jsonl",
    }  # fmt: skip


def test_settings_are_llama_benchs_options(program: Callable[..., str], tmp_path: Path) -> None:
    path = program("llama-bench", "")
    own = {"ubatch": "64", "n-gpu-layers": "2", "mmap": "off", "repack": "on", "cpu-mask": "0x3", "flash-attn": "auto"}
    with pytest.raises(BackendError, match="did not print 5 samples"):
        executables.LlamaBench(path=path).open(replace(request("cuda:0"), settings=own)).bench(WORKLOADS, silent)
    (arguments,) = called(tmp_path)
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    names = ("-ub", "-b", "-ngl", "-lm", "--repack", "-C", "-fa")
    assert [options[name] for name in names] == ["64", "512", "2", "none", "1", "0x3", "auto"]


def test_a_gpu_is_named_as_llama_bench_names_it(program: Callable[..., str], tmp_path: Path) -> None:
    backend = executables.LlamaBench(
        path=program("llama-bench", "no rows\n", version="version: 0.5.0-dev (build 1, commit 0c1e570)")
    )
    assert [(device.id, device.name, device.kind) for device in backend.devices()] == [
        ("cuda:0", "NVIDIA H200", "gpu"),
        ("cpu", "CPU", "cpu"),
    ]
    assert backend.versions()["llama-bench"] == "0.5.0-dev 0c1e570"
    with pytest.raises(BackendError, match="did not print 5 samples of pp64, tg16"):
        backend.open(request("cuda:0")).bench(WORKLOADS, silent)
    (arguments,) = called(tmp_path)
    assert arguments[arguments.index("-dev") + 1] == "CUDA0"
    assert arguments[arguments.index("-ngl") + 1] == "99"
    with pytest.raises(DeviceError, match="lists no device 'cuda:7'"):
        backend.open(request("cuda:7"))


def test_two_depths_are_two_invocations(program: Callable[..., str], tmp_path: Path) -> None:
    path = program("llama-bench", "")
    with pytest.raises(BackendError, match="did not print 5 samples"):
        executables.LlamaBench(path=path).open(request("cpu")).bench(
            [*WORKLOADS, Workload("generation", 16, 64)], silent
        )
    assert [call[call.index("-d") + 1] if "-d" in call else "" for call in called(tmp_path)] == ["", "64"]
    assert called(tmp_path)[1][2:6] == ["-p", "0", "-n", "16"]


def test_a_program_that_fails_is_told_with_its_last_lines(program: Callable[..., str]) -> None:
    path = program("llama-bench", "", "error: failed to load model\n", status=1)
    with pytest.raises(
        BackendError, match=r"llama-bench ended with exit code 1; its last lines:\nerror: failed to load"
    ):
        executables.LlamaBench(path=path).open(request("cpu")).bench(WORKLOADS, silent)


def test_invalid_json_is_refused(program: Callable[..., str]) -> None:
    with pytest.raises(BackendError, match="printed invalid JSON"):
        executables.LlamaBench(path=program("llama-bench", "{oops\n")).open(request("cpu")).bench(WORKLOADS, silent)


AGES = {
    "2025-03": ("-d", "-dev", "--list-devices", "--version"),
    "2025-07": ("-dev", "--list-devices", "--version"),
    "2025-10": ("--version",),
    "flags": ("-d", "-dev", "--list-devices", "--version"),
}
"""Rows of llama-bench by age, or of a fork with a flag for each backend, and the options that such a build lacks."""


def rows_of(age: str) -> str:
    return (Path(__file__).with_name("llama_bench") / f"{age}.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("age", AGES)
def test_builds_of_every_age_that_know_rwkv7_are_read(program: Callable[..., str], age: str) -> None:
    backend = executables.LlamaBench(path=program("llama-bench", rows_of(age), unknown=AGES[age]))
    assert backend.versions()["llama-bench"] == "unknown"
    assert {device.id for device in backend.devices()} - {"cuda:0"} == {"cpu"}
    taken = backend.open(request("cpu")).bench(WORKLOADS, silent)
    assert [len(taken.samples[str(workload)]) for workload in WORKLOADS] == [5, 5]
    assert taken.samples["pp64"][0].nanoseconds == 17241669
    assert taken.versions is not None
    assert taken.versions["build"] in {"7dfad387 (4911)", "3e0be1ca (5835)", "c8dedc99 (6730)", "fork0001 (3700)"}


def test_a_build_that_cannot_be_told_a_device_may_have_no_gpu(program: Callable[..., str]) -> None:
    rows = rows_of("2025-07").replace('"gpu_info": ""', '"gpu_info": "NVIDIA H200"')
    backend = executables.LlamaBench(path=program("llama-bench", rows, unknown=AGES["2025-07"]))
    with pytest.raises(DeviceError, match="cannot be told a device and used NVIDIA H200; take a build"):
        backend.open(request("cpu")).bench(WORKLOADS, silent)
    with pytest.raises(DeviceError, match="lists no device 'cuda:0'"):
        backend.open(request("cuda:0"))


def test_a_build_without_context_says_so(program: Callable[..., str]) -> None:
    backend = executables.LlamaBench(path=program("llama-bench", rows_of("2025-03"), unknown=AGES["2025-03"]))
    with pytest.raises(BackendError, match=r"argument: -d\nThis build is too old for what was asked"):
        backend.open(request("cpu")).bench([Workload("generation", 16, 64)], silent)


def test_another_programs_json_holds_no_samples(program: Callable[..., str]) -> None:
    backend = executables.LlamaBench(path=program("llama-bench", '{"n_prompt": 64, "n_gen": 0}\n{}\n'))
    with pytest.raises(BackendError, match="did not print 5 samples of pp64, tg16"):
        backend.open(request("cpu")).bench(WORKLOADS, silent)


def test_a_program_that_cannot_list_its_devices_for_another_reason_is_an_error(program: Callable[..., str]) -> None:
    path = program("llama-bench")
    Path(path).write_text("#!/bin/sh\necho 'cannot load libggml.so' >&2; exit 127\n", encoding="utf-8")
    with pytest.raises(BackendError, match=r"cannot load libggml\.so"):
        executables.LlamaBench(path=path).devices()


# web-rwkv's bench


def web(path: str, quant: str = "fp16") -> executables.WebRwkvBenchProgram:
    backend = executables.WebRwkvBench(path=path)
    return backend.open(request(backend.devices()[0].id, quant, 128))


@pytest.fixture(autouse=True)
def no_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the binding is not installed: the program's adapter is not known beforehand."""
    monkeypatch.setitem(sys.modules, "rwkvperf_web_rwkv", None)


def test_web_rwkv_bench_output_is_read(program: Callable[..., str], tmp_path: Path) -> None:
    out, err = TABLE.split("--- stderr\n")
    path = program("bench", out, err, version="web-rwkv 0.10.20")
    taken = web(path, "int8@3").bench(WORKLOADS, silent)
    (prefill,), (generation,) = taken.samples["pp64"], taken.samples["tg16"]
    assert 64 / prefill.nanoseconds * 1e9 == pytest.approx(96.00)
    assert 16 / generation.nanoseconds * 1e9 == pytest.approx(4.14)
    assert taken.versions == {"adapter": "llvmpipe (LLVM 15.0.6, 256 bits)"}
    assert executables.WebRwkvBench(path=path).versions()["web-rwkv-bench"] == "0.10.20"
    assert called(tmp_path)[0][2:] == [
        "--adapter", "--token-chunk-size", "128", "--prefill-length", "64", "--generation-length", "16", "--quant", "3",
    ]  # fmt: skip


def test_a_missing_row_is_an_error(program: Callable[..., str]) -> None:
    with pytest.raises(BackendError, match="printed no speed of pp64"):
        web(program("bench", TABLE.replace("pp64", "pp65"))).bench(WORKLOADS, silent)


def test_an_adapter_other_than_listed_is_an_error(program: Callable[..., str]) -> None:
    out, err = TABLE.split("--- stderr\n")
    listed = Device("vulkan:0", "NVIDIA GeForce RTX 4090", "gpu")
    opened = replace(web(program("bench", out, err)), device=listed)
    with pytest.raises(DeviceError, match=r"used 'llvmpipe .*' where 'NVIDIA GeForce RTX 4090' was expected"):
        opened.bench(WORKLOADS, silent)


# Choosing them


def test_a_program_is_chosen_by_its_path_or_found_on_path(
    program: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program("llama-bench")
    chosen, by_hand = registry.choose(f"llama-bench:{path}")
    assert by_hand
    assert registry.load(chosen["llama-bench"]).name == "llama-bench"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert registry.choose("llama-bench,rwkv")[0]["llama-bench"] == chosen["llama-bench"]
    assert "llama-bench" not in registry.choose("all")[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("llama-bench:/nowhere/llama-bench", "'/nowhere/llama-bench' is not an executable program"),
        ("web-rwkv-bench", "there is no web-rwkv-bench on PATH"),
        ("rwkv:/path", "'rwkv:/path' is unknown; allowed: all, rwkv, .*llama-bench:/path"),
    ],
)
def test_a_program_that_is_not_there_is_a_usage_error(text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OptionError, match=said):
        registry.choose(text)


def test_a_program_cannot_be_driven_token_by_token(program: Callable[..., str]) -> None:
    location = registry.choose(f"llama-bench:{program('llama-bench')}")[0]["llama-bench"]
    with Worker() as worker:
        worker.open(location, Path("model.gguf"), Case("llama-bench", "nano", "f16", "cpu", 2, 512))
        for refused, arguments in (
            ("clear", {}),
            ("logits", {}),
            ("prefill", {"tokens": [1]}),
            ("decode", {"token": 1}),
        ):
            with pytest.raises(BackendError, match="llama-bench runs whole benchmarks only"):
                worker.request(refused, QUICK_SECONDS, **arguments)
