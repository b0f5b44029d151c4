"""A backend as a third party would offer one: it keeps its own time, and misbehaves when told to.

It computes nothing but the right answers to the parity checks, and those once for all its processes.

    SCRIPTED_FACTOR   how many times as long everything takes ("2")
    SCRIPTED_FAULT    WHAT@WHERE, where WHERE is versions, open or a word of the Engine protocol ("abort@decode");
                      with @QUANT after it, in cases of that quant only ("abort@decode@fp16"); several between ";"
    SCRIPTED_NOTE     a file for what a fault has to tell, a folder for those that meet
    SCRIPTED_MARK     a file that gets the time just before a fault
    SCRIPTED_CALM     a file that, once it is there, ends every misbehaviour of processes that start later
    SCRIPTED_CGROUP   a control group of memory that the fault "starve" moves its process into
    SCRIPTED_TRACE    a file that gets a line for each process that opens a model: its id and the quant
    SCRIPTED_CLOCK    "real": sleep through the time that a token takes, where otherwise the worker's clock is moved on

NumPy and the oracle are imported where they are used: hundreds of workers are started that never get there.

With the moved clock every figure is the same in every run, and a second of warm-up takes none.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pytest_rwkvperf.core.engine import Device, OpenRequest
from pytest_rwkvperf.oracle.agreement import DEPTH, PROMPT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from pytest_rwkvperf.core.cases import Format

VOCABULARY = 65536
LOAD_SECONDS = 0.25
PREFILL_SECONDS = 0.02
DECODE_SECONDS = 0.1
"""Per token. So slow that a few repetitions fill the second which a warm-up has to last."""
NOISE_BYTES = 100 << 20
CPU = Device("cpu", "Scripted processor", "cpu")
SPARE = Device("spare:0", "Scripted spare", "cpu")
GPUS = (
    Device("cuda:0", "Scripted GPU", "gpu", physical="0000:00:06.0"),
    Device("cuda:1", "Scripted GPU", "gpu", physical="0000:00:07.0"),
)


def _installed_factor() -> float:
    """How slow the release of a package makes the engine: what a search for the slow one finds."""
    try:
        import scripted_speed  # type: ignore[import-not-found]  # a wheel that a test makes
    except ModuleNotFoundError:
        return 1.0
    return float(scripted_speed.FACTOR)


class Clock:
    """A clock that moves when it is told to; in nanoseconds."""

    def __init__(self) -> None:
        self._now = 0.0
        self._factor = float(os.environ.get("SCRIPTED_FACTOR", "1")) * _installed_factor()
        self._real = os.environ.get("SCRIPTED_CLOCK") == "real"

    def install(self) -> None:
        """Take the place of this process's clock."""
        if not self._real:
            self._now = float(time.perf_counter_ns())
            time.perf_counter_ns = self.read  # type: ignore[assignment]  # NaN is no int, which is the point

    def read(self) -> int | float:
        """What `time.perf_counter_ns` gives."""
        return int(self._now) if math.isfinite(self._now) else self._now

    def pass_time(self, seconds: float) -> None:
        """Let so much time go by, times the factor."""
        if self._real:
            time.sleep(seconds * self._factor)
        else:
            self._now += seconds * self._factor * 1e9

    def stop(self) -> None:
        """No time passes any more."""
        self._factor = 0

    def run_backwards(self) -> None:
        """Time is lost where it should pass."""
        self._factor = -abs(self._factor)

    def lose_count(self) -> None:
        """The clock gives NaN from now on."""
        self._now = float("nan")


CLOCK = Clock()


class EngineFailedError(Exception):
    """An engine's own exception, unknown to the plugin."""


class Panic(BaseException):
    """What a Rust panic becomes in Python: no Exception."""


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
    """Start a child that starts a grandchild in a session of its own, none of which heeds SIGTERM; then hang."""
    deaf = "import signal, sys, time, subprocess; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    sleep = "time.sleep(600)"
    start = f"subprocess.Popen([sys.executable, '-c', {deaf + sleep!r}], start_new_session=True); "
    subprocess.Popen([sys.executable, "-c", deaf + start + sleep])
    _hang()


def _orphan() -> NoReturn:
    """Crash with a child running, whose id goes to the file SCRIPTED_NOTE."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(os.environ["SCRIPTED_NOTE"]).write_text(str(child.pid), encoding="utf-8")
    _abort()


def _sleep() -> None:
    time.sleep(600)


def _hang_at_exit() -> None:
    """As an engine's destructor may."""
    atexit.register(time.sleep, 600)


def _read_stdin() -> None:
    if sys.stdin.read() or os.read(0, 10):
        raise EngineFailedError("there was something on stdin")


def _noise() -> None:
    """Native code that prints on stdout: a hundred megabytes without a line break, then a broken answer."""
    for _ in range(NOISE_BYTES >> 20):
        os.write(1, b"x" * (1 << 20))
    os.write(1, b'\n{"id": 1, "done": 5}\n')


def _deaf() -> NoReturn:
    """As native code in an endless loop: every signal blocked, and Python's lock held, so that no thread can end it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    while True:
        ctypes.PyDLL(None).pause()


def _flood() -> None:
    """Two gigabytes on stdout, one of them in lines, and a hundred megabytes on stderr."""
    lines = (b"x" * 127 + b"\n") * 8192
    for descriptor, megabytes, data in ((1, 1024, lines), (1, 1024, b"x" * (1 << 20)), (2, 100, lines)):
        for _ in range(megabytes):
            os.write(descriptor, data)


def _tell() -> NoReturn:
    """An engine that prints its environment, and a token that it has from elsewhere, before it crashes."""
    sys.stderr.write(f"{dict(os.environ)}\n" + "refused: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6.eyJzdWIi.c2ln\n")
    sys.stderr.write("\x1b[2J\x1b]0;owned\x07still here\n")
    raise EngineFailedError(f"401 for token {os.environ.get('HF_TOKEN')}")


def _pipes() -> list[int]:
    """Descriptors of the pipes behind stderr: the one that answers go through is among them."""
    found = {int(path.name): os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()}
    return [number for number, target in sorted(found.items()) if number > sys.stderr.fileno() and "pipe:" in target]


def _garble() -> None:
    """Memory gone wrong: bytes in the private pipe."""
    os.write(_pipes()[-1], b"\x93NUMPY\x01\x00 not for you\n")


def _huge() -> None:
    """An answer without an end."""
    while True:
        os.write(_pipes()[-1], b'{"id": 1, "done": "' + b"x" * (8 << 20))


def _exhaust() -> None:
    """Ask for more memory than the process may have."""
    import resource

    import numpy as np

    resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))
    np.ones(1 << 31)


def _starve() -> None:
    """Take more memory than the control group has, so that the kernel ends this process."""
    import numpy as np

    Path(os.environ["SCRIPTED_CGROUP"], "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    kept = []
    while True:
        kept.append(np.ones(1 << 20))


def _ggml_assert() -> None:
    """A real assertion of llama.cpp's: there is no device of this number."""
    import importlib

    importlib.import_module("llama_cpp")
    folder = Path(sys.modules["llama_cpp"].__file__ or "").parent / "lib"
    (library,) = (path for path in folder.iterdir() if path.name in {"libggml.so", "libggml.dylib", "ggml.dll"})
    ctypes.CDLL(str(library)).ggml_backend_dev_get(ctypes.c_size_t(10**6))


def _rust_panic() -> None:
    """A real one, of a Rust extension module that comes with the rwkv package."""
    from tokenizers.pre_tokenizers import FixedLength

    FixedLength(0).pre_tokenize_str("hello")


def _panic() -> NoReturn:
    raise Panic("called `Option::unwrap()` on a `None` value")


def _raise() -> NoReturn:
    raise EngineFailedError("the script says so")


def _missing() -> NoReturn:
    raise ImportError("No module named 'scripted_native'")


def _meet() -> None:
    """Wait until the engine of another device is here as well: a run that measures them in turn ends in an error."""
    here = Path(os.environ["SCRIPTED_NOTE"])
    (here / os.environ["SCRIPTED_DEVICE"].replace(":", "-")).touch()
    limit = time.monotonic() + 120
    while len([*here.iterdir()]) < 2:
        if time.monotonic() > limit:
            raise EngineFailedError("nobody else came")
        time.sleep(0.02)


def _nothing() -> None:
    """For what is looked up with `Script.says` instead."""


FAULTS = {
    "abort": _abort,
    "segfault": _segfault,
    "exit3": _exit3,
    "killed": _killed,
    "hang": _hang,
    "hang-with-child": _hang_with_child,
    "hang-at-exit": _hang_at_exit,
    "noise": _noise,
    "orphan": _orphan,
    "sleep": _sleep,
    "read-stdin": _read_stdin,
    "deaf": _deaf,
    "flood": _flood,
    "tell": _tell,
    "garble": _garble,
    "huge": _huge,
    "exhaust": _exhaust,
    "starve": _starve,
    "ggml-assert": _ggml_assert,
    "panic": _panic,
    "rust-panic": _rust_panic,
    "raise": _raise,
    "missing": _missing,
    "meet": _meet,
    "stopped-clock": CLOCK.stop,
    "backward-clock": CLOCK.run_backwards,
    "nan-clock": CLOCK.lose_count,
    "no-device": _nothing,
    "spare-only": _nothing,
    "two-gpus": _nothing,
    "other-device": _nothing,
    "wrong": _nothing,
}


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
        """Misbehave, and say beforehand when."""
        mark = Path(os.environ.get("SCRIPTED_MARK", os.devnull) + self.quant)
        if "SCRIPTED_MARK" in os.environ and not mark.exists():
            mark.write_text(str(time.time()), encoding="ascii")
        FAULTS[self.what]()


@dataclass(frozen=True, slots=True)
class Script:
    """What SCRIPTED_FAULT says."""

    faults: tuple[Fault, ...]

    @classmethod
    def read(cls) -> Script:
        """From the environment."""
        calm = Path(os.environ.get("SCRIPTED_CALM", "/nowhere")).exists()
        told = "" if calm else os.environ.get("SCRIPTED_FAULT", "")
        return cls(tuple(Fault.read(text) for text in told.split(";") if text))

    def says(self, what: str, quant: str = "") -> bool:
        """Whether this fault is asked for, wherever."""
        return any(fault.what == what and fault.quant in {"", quant} for fault in self.faults)

    def play(self, where: str, quant: str = "") -> None:
        """Misbehave, if this is the place."""
        for fault in self.faults:
            if fault.where == where and fault.quant in {"", quant}:
                fault.play()


def right_answer(model: Path, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
    """What RWKV-7 says after some tokens; kept beside the model."""
    import numpy as np

    digest = hashlib.sha256(repr(tuple(tokens)).encode()).hexdigest()[:16]
    path = model.with_name(f"{model.name}.{digest}.npy")
    if not path.exists():
        from pytest_rwkvperf.models import st
        from pytest_rwkvperf.oracle.rwkv7 import Oracle

        temporary = path.with_suffix(f".{os.getpid()}.npy")
        np.save(temporary, Oracle(st.read_header(model).weights()).forward(tokens))
        temporary.replace(path)
    answer: npt.NDArray[np.float32] = np.load(path)
    return answer


class ScriptedEngine:
    """The tokens since the last clear are its state, and their sum is its logits."""

    vocabulary = VOCABULARY

    def __init__(self, request: OpenRequest, device: Device) -> None:
        request.path.stat()
        self.device = device
        self._request = request
        self._tokens: list[int] = []
        CLOCK.pass_time(LOAD_SECONDS)

    def clear(self) -> None:
        """Forget all tokens."""
        self._play("clear")
        self._tokens = []

    def save_state(self) -> list[int]:
        """The tokens so far."""
        return list(self._tokens)

    def load_state(self, state: list[int]) -> None:
        """These tokens again."""
        self._tokens = list(state)

    def prefill(self, tokens: Sequence[int]) -> None:
        """Add tokens."""
        assert 0 < len(tokens) <= self._request.chunk
        self._play("prefill")
        CLOCK.pass_time(PREFILL_SECONDS * len(tokens))
        self._tokens += tokens

    def decode(self, token: int) -> None:
        """Add one token."""
        self._play("decode")
        CLOCK.pass_time(DECODE_SECONDS)
        self._tokens.append(token)

    def synchronise(self) -> None:
        """Nothing is queued."""
        self._play("synchronise")

    def logits(self) -> npt.NDArray[np.float32]:
        """The sum, modulo a thousand, everywhere; the right answer where that is checked."""
        import numpy as np

        from pytest_rwkvperf.worker import parity

        self._play("logits")
        count = len(self._tokens)
        if count in {PROMPT, DEPTH} and tuple(self._tokens) == parity.tokens(VOCABULARY, count):
            right = right_answer(self._request.path, self._tokens)
            return right + 1 if Script.read().says("wrong", self._request.quant) else right
        return np.full(VOCABULARY, sum(self._tokens) % 1000, dtype=np.float32)

    def _play(self, where: str) -> None:
        Script.read().play(where, self._request.quant)


@dataclass(frozen=True, slots=True)
class Scripted:
    """The backend, under the name and with the rules that the tests give it."""

    name: str = "scripted"
    format: Format = "st"
    install: str = "pip install scripted-native"
    no_device: str = "plug in a scripted device"
    standard_chunk: int = 64
    max_chunk: int | None = 256
    quants: tuple[str, ...] = ("fp16", "int8")

    def accepts(self, quant: str) -> bool:
        """The two, and `int8@...`."""
        return quant in self.quants or quant.startswith("int8@")

    def standard_quants(self, device: Device) -> tuple[str, ...]:
        """One on the spare device, so that tests can tell that they were asked per device."""
        return ("fp16",) if device.id == SPARE.id else self.quants

    def file_quant(self, quant: str) -> str | None:  # noqa: ARG002 - the Protocol's signature
        """It converts while loading."""
        return None

    def emulation(self, quant: str) -> str:  # noqa: ARG002 - the Protocol's signature
        """The file's own numbers."""
        return ""

    def environment(self, device: str | None) -> Mapping[str, str]:
        """The script; and the device, as CUDA_VISIBLE_DEVICES would be."""
        script = {name: value for name, value in os.environ.items() if name.startswith("SCRIPTED_")}
        return script if device is None else {**script, "SCRIPTED_DEVICE": device}

    def versions(self) -> Mapping[str, str]:
        """The version is what the tests say it is: baselines are keyed by it."""
        Script.read().play("versions")
        return {"scripted": os.environ.get("SCRIPTED_VERSION", "1.0")}

    def devices(self) -> Sequence[Device]:
        """A best one and a spare one; or two GPUs and the processor."""
        script = Script.read()
        if script.says("two-gpus"):
            return (*GPUS, CPU)
        return () if script.says("no-device") else (SPARE,) if script.says("spare-only") else (CPU, SPARE)

    def open(self, request: OpenRequest) -> ScriptedEngine:
        """Open without reading: only what a header would tell matters here."""
        script = Script.read()
        if _installed_factor() < 0:
            raise RuntimeError("no such thing in this release")
        CLOCK.install()
        if trace := os.environ.get("SCRIPTED_TRACE"):
            with Path(trace).open("a", encoding="utf-8") as file:
                file.write(f"{os.getpid()} {request.quant} {request.device}\n")
        script.play("open", request.quant)
        device = (
            CPU
            if script.says("other-device", request.quant)
            else {one.id: one for one in (CPU, SPARE, *GPUS)}[request.device]
        )
        return ScriptedEngine(request, device)


BACKEND = Scripted()
