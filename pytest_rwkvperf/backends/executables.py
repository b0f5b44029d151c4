"""The engines' own benchmark programs: `--rwkv-backend=llama-bench:/path` and `web-rwkv-bench:/path`.

They print speeds and no logits, so their answers cannot be checked. Their cases have the native protocol.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.backends.llama_cpp import LlamaCpp, ranked
from pytest_rwkvperf.backends.web_rwkv import WebRwkv
from pytest_rwkvperf.core import clock
from pytest_rwkvperf.core.digest import sha256_of
from pytest_rwkvperf.core.engine import Device, OpenRequest
from pytest_rwkvperf.core.errors import BackendError, DeviceError, OptionError
from pytest_rwkvperf.core.paths import user_path
from pytest_rwkvperf.core.samples import REPETITIONS, Sample, ToolResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_rwkvperf.core.cases import Workload

    Report = Callable[[str, float], None]

LLAMA_BENCH_BATCH = 2048
"""llama-bench's `-b`: its own default, unless a chunk is larger."""

LLAMA_BENCH_LAYERS = 99
"""llama-bench's `-ngl` on a GPU: all layers."""

_OPTIONS = {
    "flash-attn": "-fa",
    "poll": "--poll",
    "prio": "--prio",
    "cpu-mask": "-C",
    "mmap": "-lm",
    "repack": "--repack",
}
_WORDS = {"mmap": {"on": "mmap", "off": "none"}, "repack": {"on": "1", "off": "0"}}
"""llama-bench's options for llama.cpp's own settings, and the words of those whose values have others there."""

_QUERY_SECONDS = 60.0
_NO_SUCH_OPTION = "invalid parameter for argument"
"""What llama-bench says of an option that it does not know."""
_CPU = Device("cpu", "CPU", "cpu")
_ANY_ADAPTER = Device("auto", "the first high-performance adapter", "gpu")
_ROW = re.compile(r"^\|[^|]*\|[^|]*\|[^|]*\|\s*(pp|tg)(\d+)\s*\|\s*([\d.]+)\s*\|\s*$", re.MULTILINE)
_ADAPTER = re.compile(r'AdapterInfo \{\s*name: "((?:[^"\\]|\\.)*)"')
_VERSION = re.compile(r"(\d+\.\d+\S*)(?: \(build (\d+), commit (\w+)\))?")


def located(name: str, path: str, option: str = "--rwkv-backend") -> str:
    """A program's absolute path: the path given, or its name's on PATH.

    Raises:
        OptionError: there is no such program.
    """
    program = shutil.which(user_path(path) if path else name)
    if program is None:
        reason = f"{path!r} is not an executable program" if path else f"there is no {name} on PATH"
        raise OptionError(f"{option}={name}: {reason}; write {option}={name}:/path/to/{name}")
    return str(Path(program).absolute())


def run_program(command: Sequence[object], seconds: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, for at most `seconds`; the command's parts become text.

    Raises:
        BackendError: it failed; with its last lines.
    """
    try:
        ended = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(f"{command[0]} could not be run: {error}; run it by hand to see why") from error
    if ended.returncode:
        last = "\n".join((ended.stderr or ended.stdout).strip().splitlines()[-10:])
        raise BackendError(f"{command[0]} ended with exit code {ended.returncode}; its last lines:\n{last}")
    return ended


def _digest(path: str) -> str:
    """Identifies the build: two builds of one version may differ."""
    return sha256_of(Path(path))[:12]


@dataclass(frozen=True)
class InvokedProgram:
    """What the programs have in common."""

    request: OpenRequest
    device: Device
    path: str

    def check_complete(self, samples: Mapping[str, Sequence[Sample]], workloads: Sequence[Workload]) -> None:
        """Check that the program has printed REPETITIONS samples of each workload.

        Raises:
            BackendError: it has not.
        """
        missing = [name for name in map(str, workloads) if len(samples.get(name, ())) != REPETITIONS]
        if missing:
            raise BackendError(
                f"{self.path} did not print {REPETITIONS} samples of {', '.join(missing)}; "
                "run it by hand to see what it prints"
            )

    @property
    def peak_rss_bytes(self) -> int:
        """Peak memory of the largest invocation so far; 0 where the system does not report it."""
        try:
            import resource
        except ImportError:
            return 0
        unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2)
        return int(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * unit


@dataclass(frozen=True)
class LlamaBenchProgram(InvokedProgram):
    """llama-bench with a model; `own_name` is its name of the device, empty where it cannot be told one."""

    own_name: str

    def bench(self, workloads: Sequence[Workload], report: Report) -> ToolResult:
        """One invocation for each depth of context.

        Raises:
            BackendError: it failed, or samples are missing.
            DeviceError: it used a GPU that it could not be told to leave alone.
        """
        samples: dict[str, tuple[Sample, ...]] = {}
        versions: dict[str, str] = {}
        for depth in dict.fromkeys(workload.depth for workload in workloads):
            chosen = [workload for workload in workloads if workload.depth == depth]
            report(f"{Path(self.path).name}: {', '.join(map(str, chosen))}", 0.0)
            started = clock.time_of_day()
            for row in self._rows(chosen, depth):
                self._check_device(row)
                versions = _versions(row)
                workload = next((workload for workload in chosen if _is_of(row, workload)), None)
                if workload is not None:
                    times = row.get("samples_ns", ())
                    samples[str(workload)] = tuple(Sample(started, int(time), ()) for time in times)
        self.check_complete(samples, workloads)
        return ToolResult(samples, versions=versions)

    def _rows(self, chosen: Sequence[Workload], depth: int) -> list[dict[str, Any]]:
        request = self.request
        lengths = {
            kind: ",".join(str(workload.tokens) for workload in chosen if workload.kind == kind) or "0"
            for kind in ("prefill", "generation")
        }
        batch, micro_batch = batches(request.chunk, request.settings)
        command = [
            self.path, "-m", request.path, "-p", lengths["prefill"], "-n", lengths["generation"],
            "-r", REPETITIONS, "-t", request.threads, "-ub", micro_batch, "-b", batch,
            "-ngl", gpu_layers(self.device, request.settings), "-o", "jsonl", *self._settings(),
            *(("-d", depth) if depth else ()), *(("-dev", self.own_name) if self.own_name else ()),
        ]  # fmt: skip
        try:
            ended = run_program(command)
        except BackendError as error:
            if _NO_SUCH_OPTION not in str(error):
                raise
            raise BackendError(
                f"{error}\nThis build is too old for what was asked: take a newer llama-bench"
            ) from error
        try:
            return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        except json.JSONDecodeError as error:
            raise BackendError(f"{self.path} printed invalid JSON: {error}; is it llama-bench?") from error

    def _settings(self) -> list[str]:
        """The options for the settings that have a value; micro-batch and layers have theirs in every call."""
        given = self.request.settings
        pairs = [
            (_OPTIONS[name], _WORDS.get(name, {}).get(given[name], given[name])) for name in _OPTIONS if name in given
        ]
        return [text for pair in pairs for text in pair]

    def _check_device(self, row: Mapping[str, Any]) -> None:
        """A build that cannot be told a device gives a GPU part of the work, even with no layers there."""
        if not self.own_name and row.get("gpu_info"):
            raise DeviceError(
                f"{self.path} cannot be told a device and used {row['gpu_info']}; take a build of llama.cpp from "
                "September 2025 or later, or one for the CPU alone"
            )


def batches(chunk: int, settings: Mapping[str, str]) -> tuple[int, int]:
    """llama-bench's `-b` and `-ub`. It computes a chunk at once, unless a micro-batch is set: then its batch is one."""
    return (chunk, int(settings["ubatch"])) if "ubatch" in settings else (max(LLAMA_BENCH_BATCH, chunk), chunk)


def gpu_layers(device: Device, settings: Mapping[str, str]) -> int:
    """llama-bench's `-ngl`."""
    return 0 if device.kind == "cpu" else int(settings.get("n-gpu-layers", LLAMA_BENCH_LAYERS))


def _versions(row: Mapping[str, Any]) -> dict[str, str]:
    """llama-bench's build and hardware in a row of its output, for the reports in its formats."""
    build = {"build": f"{row.get('build_commit', 'unknown')} ({row.get('build_number', 0)})"}
    return build | {name: str(row[name]) for name in ("backends", "cpu_info", "gpu_info") if row.get(name)}


def _is_of(row: Mapping[str, Any], workload: Workload) -> bool:
    prefill = workload.kind == "prefill"
    wanted = (workload.tokens, 0) if prefill else (0, workload.tokens)
    return (row.get("n_prompt"), row.get("n_gen")) == wanted and row.get("n_depth", 0) == workload.depth


class WebRwkvBenchProgram(InvokedProgram):
    """web-rwkv's `bench` with a model. It prints one speed of all repetitions together, to two decimals."""

    def bench(self, workloads: Sequence[Workload], report: Report) -> ToolResult:
        """One invocation for each prefill and generation of the lists.

        Raises:
            BackendError: it failed, or a speed is missing.
            DeviceError: it used another adapter than was listed.
        """
        prefills = [workload for workload in workloads if workload.kind == "prefill"]
        generations = [workload for workload in workloads if workload.kind == "generation"]
        samples: dict[str, tuple[Sample, ...]] = {}
        adapter = ""
        for pair in zip_longest(prefills, generations):
            report(f"{Path(self.path).name}: {', '.join(str(workload) for workload in pair if workload)}", 0.0)
            started = clock.time_of_day()
            ended = run_program(self._command(*(workload.tokens if workload else 1 for workload in pair)))
            adapter = self._checked_adapter(ended.stderr)
            speeds = {f"{kind}{count}": float(speed) for kind, count, speed in _ROW.findall(ended.stdout)}
            for workload in filter(None, pair):
                if not speeds.get(str(workload), 0.0) > 0:
                    raise BackendError(
                        f"{self.path} printed no speed of {workload}; is it web-rwkv's bench? It printed:\n"
                        f"{ended.stdout[-2000:]}"
                    )
                nanoseconds = round(workload.tokens / speeds[str(workload)] * 1e9)
                samples[str(workload)] = (Sample(started, nanoseconds, ()),)
        return ToolResult(samples, versions={"adapter": adapter})

    def _command(self, prefill: int, generation: int) -> list[str]:
        request = self.request
        command = [self.path, "--model", str(request.path), "--adapter", "--token-chunk-size", str(request.chunk)]
        command += ["--prefill-length", str(prefill), "--generation-length", str(generation)]
        name, _, layers = request.quant.partition("@")
        if name != "fp16":
            option = {"int8": "--quant", "nf4": "--quant-nf4", "sf4": "--quant-sf4"}[name]
            command += [option, layers or str(_layers(request.path))]
        return command

    def _checked_adapter(self, stderr: str) -> str:
        adapter = _ADAPTER.search(stderr)
        if adapter and self.device.id != _ANY_ADAPTER.id and adapter[1] != self.device.name:
            raise DeviceError(
                f"{self.path} used {adapter[1]!r} where {self.device.name!r} was expected; it takes the first adapter, "
                "so leave other drivers out (VK_DRIVER_FILES)"
            )
        return adapter[1] if adapter else ""


def _layers(path: Path) -> int:
    from pytest_rwkvperf.models import st

    return st.read_header(path).shape.layers


@dataclass(frozen=True)
class LlamaBench(LlamaCpp):
    """llama-bench of any build that knows RWKV-7, with llama.cpp's files and quants.

    That is since March 2025 (pull request 12412 of llama.cpp). Builds before April 2025 (13096) measure without context
    and print no `n_depth`; those before September 2025 (16039) list no devices and take none, so only builds for the
    CPU can be used of them. Forks whose rows have a flag for each backend, as llama.cpp's had until 2024, are read too.
    """

    name: str = "llama-bench"
    install: str = "build llama.cpp's target llama-bench"
    no_device: str = "run it with --list-devices"
    path: str = ""
    distributions: tuple[str, ...] = ()
    tells_logits: bool = False
    max_batch: int = 1

    def versions(self) -> Mapping[str, str]:
        """Its own version, which older builds do not print."""
        try:
            ended = run_program([self.path, "--version"], _QUERY_SECONDS)
        except BackendError:
            return {self.name: "unknown", "executable": _digest(self.path)}
        match = _VERSION.search(ended.stdout + ended.stderr)
        version = f"{match[1]} {match[3] or ''}".strip() if match else "unknown"
        return {self.name: version, "executable": _digest(self.path)}

    def build(self) -> str:
        """Known by its bytes."""
        return f"executable = {_digest(self.path)}"

    def devices(self) -> Sequence[Device]:
        """Its GPUs, then the CPU."""
        return ranked(self._named.values())

    @property
    def _named(self) -> dict[str, Device]:
        """Devices by llama-bench's own names: `CUDA0`. The CPU alone, without a name, where it lists none."""
        try:
            ended = run_program([self.path, "--list-devices"], _QUERY_SECONDS)
        except BackendError as error:
            if _NO_SUCH_OPTION not in str(error):
                raise
            return {"": _CPU}
        devices = {}
        for line in (ended.stdout + ended.stderr).splitlines():
            if match := re.match(r"\s+([A-Za-z]+)(\d+): (.*?)(?: \(\d+ MiB.*)?$", line):
                kind = "software" if "llvmpipe" in match[3].lower() else "gpu"
                devices[match[1] + match[2]] = Device(f"{match[1].lower()}:{match[2]}", match[3], kind)  # type: ignore[arg-type]
        return {**devices, "none": _CPU}

    def open(self, request: OpenRequest) -> LlamaBenchProgram:  # type: ignore[override]  # a Program, as Backend allows
        """Load nothing: the program loads the model at each invocation."""
        return LlamaBenchProgram(request, *self.located_device(request.device))

    def located_device(self, device_id: str) -> tuple[Device, str, str]:
        """A listed device, with the program's path and its own name of the device.

        Raises:
            DeviceError: the program does not list it.
        """
        named = self._named
        for own_name, device in named.items():
            if device.id == device_id:
                return device, self.path, own_name
        known = ", ".join(device.id for device in named.values())
        raise DeviceError(f"{self.path} lists no device {device_id!r}, but {known}; choose one with --rwkv-device")


@dataclass(frozen=True)
class WebRwkvBench(WebRwkv):
    """web-rwkv's `bench` of any build."""

    name: str = "web-rwkv-bench"
    install: str = "cargo install web-rwkv --version 0.10.20 --example bench --locked"
    path: str = ""
    distributions: tuple[str, ...] = ()
    tells_logits: bool = False
    max_batch: int = 1

    def versions(self) -> Mapping[str, str]:
        """The crate's version, and what the program is known by."""
        match = _VERSION.search(run_program([self.path, "--version"], _QUERY_SECONDS).stdout)
        return {"web-rwkv-bench": match[1] if match else "unknown", "executable": _digest(self.path)}

    def build(self) -> str:
        """Known by its bytes."""
        return f"executable = {_digest(self.path)}"

    def devices(self) -> Sequence[Device]:
        """The adapter that `--adapter` selects: the binding's first, because the program cannot list them."""
        try:
            listed = super().devices()
        except ImportError:
            listed = ()
        return (listed[0] if listed else _ANY_ADAPTER,)

    def open(self, request: OpenRequest) -> WebRwkvBenchProgram:  # type: ignore[override]  # a Program, as Backend allows
        """Load nothing: the program loads the model at each invocation."""
        (device,) = self.devices()
        if device.id != request.device:
            raise DeviceError(f"{self.path} uses {device.id}, not {request.device!r}")
        return WebRwkvBenchProgram(request, device, self.path)
