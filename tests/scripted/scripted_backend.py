"""A third party's backend for tests: it has a clock of its own, and faults that environment variables ask for.

Its logits are correct only for the prompts of the parity checks and the known prompt of timed repetitions, for which it
reads them from the plugin's cache.

    SCRIPTED_FACTOR   everything takes this many times as long ("2")
    SCRIPTED_FAULT    WHAT@WHERE, where WHERE is versions, open or a method of the Engine protocol ("abort@decode");
                      `@QUANT` limits it to that quant ("abort@decode@fp16"); separate several with `;`
    SCRIPTED_NOTE     a file for a fault's output, or, for `meet`, a folder in which engines wait for each other
    SCRIPTED_MARK     a file that gets the time just before a fault
    SCRIPTED_CALM     a file; once it exists, processes that start have no faults
    SCRIPTED_CGROUP   a memory control group; the fault "starve" moves its process into it
    SCRIPTED_TRACE    a file that gets a line for each process that opens a model: its id and the quant
    SCRIPTED_CLOCK    "real": sleep as long as a token takes; otherwise only the worker's clock is moved forward

With the moved clock every run has the same figures, and a second of warm-up takes no time. NumPy and the oracle are
imported in functions, since most of the hundreds of workers do not need them.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pytest_rwkvperf.core.engine import Device, OpenRequest
from pytest_rwkvperf.core.engine_settings import Setting
from pytest_rwkvperf.core.samples import CHECK_SEED, KNOWN_SEED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from pytest_rwkvperf.core.cases import Format

VOCABULARY = 65536
LOAD_SECONDS = 0.25
PREFILL_SECONDS = 0.02
DECODE_SECONDS = 0.1
"""Per token; slow enough that a few repetitions fill the second of a warm-up."""
NOISE_BYTES = 100 << 20
CPU = Device("cpu", "Scripted processor", "cpu")
SPARE = Device("spare:0", "Scripted spare", "cpu")
GPUS = (
    Device("cuda:0", "Scripted GPU", "gpu", physical="0000:00:06.0"),
    Device("cuda:1", "Scripted GPU", "gpu", physical="0000:00:07.0"),
)


def _installed_factor() -> float:
    """The slowness of the installed release, which tests of `rwkvperf bisect` search for."""
    try:
        import scripted_speed  # type: ignore[import-not-found]  # a wheel that a test makes
    except ModuleNotFoundError:
        return 1.0
    return float(scripted_speed.FACTOR)


class Clock:
    """A clock in nanoseconds that is moved by its methods."""

    def __init__(self) -> None:
        self._now = 0.0
        self._factor = float(os.environ.get("SCRIPTED_FACTOR", "1")) * _installed_factor()
        self._real = os.environ.get("SCRIPTED_CLOCK") == "real"

    def install(self) -> None:
        """Replace this process's clock."""
        if not self._real:
            self._now = float(time.perf_counter_ns())
            time.perf_counter_ns = self.read  # type: ignore[assignment]  # NaN is no int, which is the point

    def read(self) -> int | float:
        """The value of `time.perf_counter_ns`."""
        return int(self._now) if math.isfinite(self._now) else self._now

    def pass_time(self, seconds: float) -> None:
        """Let this much time pass, times the factor."""
        if self._real:
            time.sleep(seconds * self._factor)
        else:
            self._now += seconds * self._factor * 1e9

    def stop(self) -> None:
        """Let no more time pass."""
        self._factor = 0

    def run_backwards(self) -> None:
        """Go backwards where time should pass."""
        self._factor = -abs(self._factor)

    def lose_count(self) -> None:
        """Give NaN from now on."""
        self._now = float("nan")


CLOCK = Clock()


class EngineFailedError(Exception):
    """An engine's own exception, unknown to the plugin."""


class Panic(BaseException):
    """A Rust panic as Python sees it: not an Exception."""


def _abort() -> NoReturn:
    sys.stderr.write("GGML_ASSERT(scripted) failed\n")
    os.abort()


def _segfault() -> None:
    sys.stderr.write("about to read address 0\n")
    ctypes.string_at(0)


def _exit3() -> NoReturn:
    sys.stderr.write("giving up\n")
    os._exit(3)


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def _hang_with_child() -> NoReturn:
    """Start a child that starts a grandchild in a session of its own; all ignore SIGTERM. Then hang."""
    ignore = "import signal, sys, time, subprocess; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    sleep = "time.sleep(600)"
    start = f"subprocess.Popen([sys.executable, '-c', {ignore + sleep!r}], start_new_session=True); "
    subprocess.Popen([sys.executable, "-c", ignore + start + sleep])
    _hang()


def _orphan() -> NoReturn:
    """Write the id of a running child to SCRIPTED_NOTE, and crash."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(os.environ["SCRIPTED_NOTE"]).write_text(str(child.pid), encoding="utf-8")
    _abort()


def _sleep() -> None:
    time.sleep(600)


def _hang_at_exit() -> None:
    """Hang at exit, as an engine's destructor may."""
    atexit.register(time.sleep, 600)


def _read_stdin() -> None:
    if sys.stdin.read() or os.read(0, 10):
        raise EngineFailedError("there was something on stdin")


def _noise() -> None:
    """Print on stdout as native code does: a hundred megabytes without a line break, then a broken answer."""
    for _ in range(NOISE_BYTES >> 20):
        os.write(1, b"x" * (1 << 20))
    os.write(1, b'\n{"id": 1, "done": 5}\n')


def _deaf() -> NoReturn:
    """Hang as native code may: with all signals blocked and the GIL held, so that no thread can end the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    while True:
        ctypes.PyDLL(None).pause()


def _flood() -> None:
    """Write two gigabytes to stdout, one of them in lines, and a hundred megabytes to stderr."""
    lines = (b"x" * 127 + b"\n") * 8192
    for descriptor, megabytes, data in ((1, 1024, lines), (1, 1024, b"x" * (1 << 20)), (2, 100, lines)):
        for _ in range(megabytes):
            os.write(descriptor, data)


def _print_secrets() -> NoReturn:
    """Print the environment and a token that is not in the environment, and crash."""
    sys.stderr.write(f"{dict(os.environ)}\n" + "refused: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6.eyJzdWIi.c2ln\n")
    sys.stderr.write("\x1b[2J\x1b]0;owned\x07still here\n")
    raise EngineFailedError(f"401 for token {os.environ.get('HF_TOKEN')}")


def _pipes() -> list[int]:
    """Descriptors of the pipes above stderr; the worker's private pipe for answers is one of them."""
    targets = {int(path.name): os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()}
    return [number for number, target in sorted(targets.items()) if number > sys.stderr.fileno() and "pipe:" in target]


def _garble() -> None:
    """Write stray bytes into the private pipe."""
    os.write(_pipes()[-1], b"\x93NUMPY\x01\x00 not for you\n")


def _huge() -> None:
    """Write an endless answer."""
    while True:
        os.write(_pipes()[-1], b'{"id": 1, "done": "' + b"x" * (8 << 20))


def _exhaust() -> None:
    """Allocate more memory than the process's limit."""
    import resource

    import numpy as np

    resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))
    np.ones(1 << 31)


def _starve() -> None:
    """Use more memory than the control group allows, so that the kernel kills this process."""
    import numpy as np

    Path(os.environ["SCRIPTED_CGROUP"], "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    kept = []
    while True:
        kept.append(np.ones(1 << 20))


def _ggml_assert() -> None:
    """Fail a real assertion of llama.cpp: there is no device of this number."""
    import importlib

    importlib.import_module("llama_cpp")
    folder = Path(sys.modules["llama_cpp"].__file__ or "").parent / "lib"
    (library,) = (path for path in folder.iterdir() if path.name in {"libggml.so", "libggml.dylib", "ggml.dll"})
    ctypes.CDLL(str(library)).ggml_backend_dev_get(ctypes.c_size_t(10**6))


def _rust_panic() -> None:
    """Cause a real panic in a Rust extension module that is installed with the rwkv package."""
    from tokenizers.pre_tokenizers import FixedLength

    FixedLength(0).pre_tokenize_str("hello")


def _panic() -> NoReturn:
    raise Panic("called `Option::unwrap()` on a `None` value")


def _raise() -> NoReturn:
    raise EngineFailedError("the script says so")


def _missing() -> NoReturn:
    raise ImportError("No module named 'scripted_native'")


def _meet() -> None:
    """Wait for the engine of another device; this fails if the run measures devices one after the other."""
    here = Path(os.environ["SCRIPTED_NOTE"])
    (here / os.environ["SCRIPTED_DEVICE"].replace(":", "-")).touch()
    limit = time.monotonic() + 120
    while len([*here.iterdir()]) < 2:
        if time.monotonic() > limit:
            raise EngineFailedError("the engine of the other device did not come")
        time.sleep(0.02)


def _nothing() -> None:
    """These faults are looked up with `Script.has` instead."""


_FUNCTIONS = (
    _abort, _segfault, _exit3, _killed, _hang, _hang_with_child, _hang_at_exit, _noise, _orphan, _sleep, _read_stdin,
    _deaf, _flood, _print_secrets, _garble, _huge, _exhaust, _starve, _ggml_assert, _panic, _rust_panic, _raise,
    _missing, _meet,
)  # fmt: skip
FAULTS: dict[str, Callable[[], object]] = {
    **{function.__name__[1:].replace("_", "-"): function for function in _FUNCTIONS},
    "stopped-clock": CLOCK.stop,
    "backward-clock": CLOCK.run_backwards,
    "nan-clock": CLOCK.lose_count,
    **dict.fromkeys(("no-device", "spare-only", "two-gpus", "other-device", "wrong"), _nothing),
    **dict.fromkeys(("cut", "skip", "reuse", "fifth", "exactly", "warm", "tired", "deep"), _nothing),
    **dict.fromkeys(("swap", "share", "drop", "clear-all", "late-swap"), _nothing),
}
"""The faults by their names in SCRIPTED_FAULT; `_rust_panic` is `rust-panic`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that SCRIPTED_FAULT asks for."""

    what: str
    where: str
    quant: str

    @classmethod
    def read(cls, text: str) -> Fault:
        """`WHAT@WHERE` or `WHAT@WHERE@QUANT`; a quant may hold an @ itself."""
        what, _, rest = text.partition("@")
        where, _, quant = rest.partition("@")
        return cls(what, where, quant)

    def play(self) -> None:
        """Write the time to SCRIPTED_MARK, and cause the fault."""
        mark = Path(os.environ.get("SCRIPTED_MARK", os.devnull) + self.quant)
        if "SCRIPTED_MARK" in os.environ and not mark.exists():
            mark.write_text(str(time.time()), encoding="ascii")
        FAULTS[self.what]()


@dataclass(frozen=True, slots=True)
class Script:
    """The faults in SCRIPTED_FAULT."""

    faults: tuple[Fault, ...]

    @classmethod
    def read(cls) -> Script:
        """From the environment."""
        calm = Path(os.environ.get("SCRIPTED_CALM", "/nowhere")).exists()
        script = "" if calm else os.environ.get("SCRIPTED_FAULT", "")
        return cls(tuple(Fault.read(text) for text in script.split(";") if text))

    def has(self, what: str, quant: str = "") -> bool:
        """Whether the script has this fault, in any place."""
        return any(fault.what == what and fault.quant in {"", quant} for fault in self.faults)

    def play(self, where: str, quant: str = "") -> None:
        """Cause the faults of this place."""
        for fault in self.faults:
            if fault.where == where and fault.quant in {"", quant}:
                fault.play()


LONG = 32
"""Longer prompts than the short check's, with which an engine of `Cheat` cheats."""
EXACTLY = 48
WARM_PREFILLS, TIRED_DECODES = 6, 30


class Cheat:
    """Wrong answers that make an engine fast; calls of at most LONG tokens are right, except for `tired`.

    cut: reads a quarter of the prompt; skip: reads every second token; reuse: reads the first prompt of the same length
    again; fifth: cuts from the fifth prompt on; exactly: cuts prompts of EXACTLY tokens; warm: cuts after WARM_PREFILLS
    prompts, so that only the last timed one is; tired: skips every second token after TIRED_DECODES generated ones.
    """

    def __init__(self, script: Script, quant: str) -> None:
        self._has = {name for name in FAULTS if script.has(name, quant)}
        self._prefills = self._decodes = 0
        self._before: dict[int, Sequence[int]] = {}

    def prefill(self, tokens: Sequence[int]) -> Sequence[int]:
        """The tokens that are read."""
        count = len(tokens)
        if count <= LONG:
            return tokens
        self._prefills += 1
        since = {"cut": 1, "fifth": 5, "warm": WARM_PREFILLS, "exactly": 1 if count == EXACTLY else math.inf}
        if any(name in self._has and self._prefills >= first for name, first in since.items()):
            return tokens[: count // 4]
        if "skip" in self._has:
            return tokens[::2]
        return self._before.setdefault(count, tokens) if "reuse" in self._has else tokens

    def decodes(self) -> bool:
        """Whether a generated token is read."""
        self._decodes += 1
        return not ("tired" in self._has and self._decodes > TIRED_DECODES and self._decodes % 2)


@cache
def content_hash(model: Path) -> str:
    """From the record beside a derived file; empty without one."""
    record = model.with_name(f"{model.name}.json")
    return str(json.loads(record.read_text(encoding="utf-8"))["model"]) if record.exists() else ""


def right_logits(model: Path, tokens: tuple[int, ...]) -> npt.NDArray[np.float32] | None:
    """The oracle's logits after these tokens, from the plugin's cache; None if no check has asked for them."""
    import numpy as np

    from pytest_rwkvperf.oracle import expected
    from pytest_rwkvperf.worker import protocol

    for seed in (CHECK_SEED, KNOWN_SEED):
        path = expected.path_of(content_hash(model), "", seed, len(tokens))
        if path.exists() and tokens == protocol.token_ids(len(tokens), VOCABULARY, seed):
            logits: npt.NDArray[np.float32] = np.load(path)
            return logits
    return None


def logits_after(request: OpenRequest, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
    """Zeros but for one logit that the tokens' sum chooses; for the parity checks' prompts, the correct logits."""
    import numpy as np

    right = right_logits(request.path, tuple(tokens))
    if right is not None:
        return right + 1 if Script.read().has("wrong", request.quant) else right
    logits, total = np.zeros(VOCABULARY, np.float32), sum(tokens)
    logits[total % VOCABULARY] = 100 + total % 1009
    return logits


def pace(request: OpenRequest) -> int:
    """How many times as long a prefill takes, by the case's setting."""
    return int(request.settings.get("pace", "1"))


class ScriptedEngine:
    """An engine whose state is the tokens since the last clear; its logits are their sum."""

    vocabulary = VOCABULARY

    def __init__(self, request: OpenRequest, device: Device) -> None:
        request.path.stat()
        self.device = device
        self._request = request
        self._tokens: list[int] = []
        self._cheat = Cheat(Script.read(), request.quant)
        CLOCK.pass_time(LOAD_SECONDS)

    def clear(self) -> None:
        """Forget all tokens."""
        self._play("clear")
        self._tokens = []

    def save_state(self) -> list[int]:
        """The tokens so far."""
        return list(self._tokens)

    def load_state(self, state: list[int]) -> None:
        """Restore these tokens."""
        self._tokens = list(state)

    def prefill(self, tokens: Sequence[int]) -> None:
        """Add tokens."""
        assert 0 < len(tokens) <= self._request.chunk
        self._play("prefill")
        read = self._cheat.prefill(tokens)
        CLOCK.pass_time(PREFILL_SECONDS * len(read) * pace(self._request))
        self._tokens += read

    def decode(self, token: int) -> None:
        """Add one token."""
        self._play("decode")
        read = self._cheat.decodes()
        CLOCK.pass_time(DECODE_SECONDS * self._growth() if read else DECODE_SECONDS / 4)
        if read:
            self._tokens.append(token)

    def _growth(self) -> float:
        """How many times as long a token takes: with the fault "deep" more after more tokens, as attention would."""
        deep = Script.read().has("deep", self._request.quant)
        return 1 + len(self._tokens) / 100 if deep else 1

    def synchronise(self) -> None:
        """Wait for nothing: no work is queued."""
        self._play("synchronise")

    def logits(self) -> npt.NDArray[np.float32]:
        """Those of its tokens."""
        self._play("logits")
        return logits_after(self._request, self._tokens)

    def batch(self, sequences: int) -> ScriptedBatch:
        """Sequences of their own."""
        self._play("batch")
        return ScriptedBatch(self._request, sequences)

    def _play(self, where: str) -> None:
        Script.read().play(where, self._request.quant)


class ScriptedBatch:
    """Sequences of tokens. A step takes as long as one sequence's and a tenth of that for each of the others.

    With the fault "swap" a prefill exchanges the tokens of the first two sequences, with "late-swap" a decode does from
    the LATE-th on; "share": the second sequence's tokens are the first one's; "drop": the last sequence is never
    advanced; "clear-all": clearing one sequence clears all.
    """

    LATE = 40

    def __init__(self, request: OpenRequest, sequences: int) -> None:
        self.sequences = sequences
        self._request = request
        self._tokens: list[list[int]] = [[] for _ in range(sequences)]
        self._decodes = 0

    def clear(self) -> None:
        """Forget all tokens."""
        self._tokens = [[] for _ in range(self.sequences)]

    def clear_sequence(self, sequence: int) -> None:
        """Forget one sequence's."""
        if self._has("clear-all"):
            self.clear()
        self._tokens[sequence] = []

    def save_state(self) -> list[list[int]]:
        """The tokens so far."""
        return [list(own) for own in self._tokens]

    def load_state(self, state: list[list[int]]) -> None:
        """Restore these tokens."""
        self._tokens = [list(own) for own in state]

    def prefill(self, tokens: Sequence[Sequence[int]]) -> None:
        """Add to each sequence's tokens."""
        assert len(tokens) == self.sequences
        assert sum(map(len, tokens)) <= max(self._request.chunk, self.sequences)
        CLOCK.pass_time(PREFILL_SECONDS * sum(map(len, tokens)) * pace(self._request))
        self._add(tokens)
        if self._has("swap"):
            self._swap()

    def decode(self, tokens: Sequence[int]) -> None:
        """Add one token to each sequence."""
        assert len(tokens) == self.sequences
        CLOCK.pass_time(DECODE_SECONDS * (1 + (self.sequences - 1) / 10))
        self._add([[token] for token in tokens])
        self._decodes += 1
        if self._has("late-swap") and self._decodes == self.LATE:
            self._swap()

    def _add(self, tokens: Sequence[Sequence[int]]) -> None:
        for sequence, part in enumerate(tokens):
            if not (self._has("drop") and sequence == self.sequences - 1):
                self._tokens[sequence] += part
        if self._has("share"):
            self._tokens[1] = self._tokens[0]

    def _swap(self) -> None:
        self._tokens[:2] = self._tokens[1::-1]

    def synchronise(self) -> None:
        """Wait for nothing: no work is queued."""

    def logits(self) -> npt.NDArray[np.float32]:
        """Each sequence's as the engine's."""
        import numpy as np

        return np.stack([logits_after(self._request, own) for own in self._tokens])

    def _has(self, fault: str) -> bool:
        return Script.read().has(fault, self._request.quant)


@dataclass(frozen=True, slots=True)
class Scripted:
    """The backend; tests change its fields."""

    name: str = "scripted"
    format: Format = "st"
    install: str = "pip install scripted-native"
    no_device: str = "plug in a scripted device"
    standard_chunk: int = 64
    max_chunk: int | None = 256
    max_batch: int = 64
    quants: tuple[str, ...] = ("fp16", "int8")
    settings: tuple[Setting, ...] = (Setting("pace", "a prefill takes this many times as long", numbers=(1, 9)),)

    def accepts(self, quant: str) -> bool:
        """Also accept `int8@...`, so that a run can have many cases."""
        return quant in self.quants or quant.startswith("int8@")

    def standard_quants(self, device: Device) -> tuple[str, ...]:
        """One on the spare device, so that a test sees that quants are asked for per device."""
        return ("fp16",) if device.id == SPARE.id else self.quants

    def file_quant(self, quant: str) -> str | None:  # noqa: ARG002 - the Protocol's signature
        """None: it converts while loading."""
        return None

    def emulation(self, quant: str) -> str:  # noqa: ARG002 - the Protocol's signature
        """Empty: nothing is emulated."""
        return ""

    def environment(self, device: str | None) -> Mapping[str, str]:
        """The script, and the device, as CUDA_VISIBLE_DEVICES would name it."""
        script = {name: value for name, value in os.environ.items() if name.startswith("SCRIPTED_")}
        return script if device is None else {**script, "SCRIPTED_DEVICE": device}

    def versions(self) -> Mapping[str, str]:
        """SCRIPTED_VERSION, which baselines store."""
        Script.read().play("versions")
        return {"scripted": os.environ.get("SCRIPTED_VERSION", "1.0")}

    def devices(self) -> Sequence[Device]:
        """The CPU and a spare device; with `two-gpus`, two GPUs and the CPU."""
        script = Script.read()
        if script.has("two-gpus"):
            return (*GPUS, CPU)
        return () if script.has("no-device") else (SPARE,) if script.has("spare-only") else (CPU, SPARE)

    def open(self, request: OpenRequest) -> ScriptedEngine:
        """Open without reading the file's weights."""
        script = Script.read()
        if _installed_factor() < 0:
            raise RuntimeError("no such thing in this release")
        CLOCK.install()
        if trace := os.environ.get("SCRIPTED_TRACE"):
            with Path(trace).open("a", encoding="utf-8") as file:
                file.write(f"{os.getpid()} {request.quant} {request.device}\n")
        script.play("open", request.quant)
        devices = {device.id: device for device in (CPU, SPARE, *GPUS)}
        id_ = CPU.id if script.has("other-device", request.quant) else request.device
        return ScriptedEngine(request, devices[id_])


BACKEND = Scripted()
