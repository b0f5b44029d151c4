"""The worker's side of the pipe: read requests, run the engine, answer. A process has one engine."""

from __future__ import annotations

import gc
import os
import queue
import shlex
import sys
import threading
import time
import traceback
from base64 import b64encode
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core import errors
from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.engine import Batching, CompilesKernels, OpenRequest, Program
from pytest_rwkvperf.machine.memory import peak_rss_bytes
from pytest_rwkvperf.witnesses import registry as witnesses
from pytest_rwkvperf.worker import installed, native, protocol
from pytest_rwkvperf.worker.messages import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.core.engine import Backend, Batch, Engine
    from pytest_rwkvperf.core.samples import Sample
    from pytest_rwkvperf.machine.probe_work import ProbeKind, ProbeWork
    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.oracle.agreement import Floats
    from pytest_rwkvperf.worker.parity import KeptAnswer


class Child:
    """The requests a worker answers; each public method is one, its keyword arguments the request's `with`."""

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._opened: Engine | Program | None = None
        self._chunk = 0
        self._repetitions = protocol.Repetitions(0)
        self._batch: Batch | None = None
        self._kept: dict[str, list[KeptAnswer]] = {}
        self._probe_work: dict[int, ProbeWork] = {}
        self.report: Callable[[str, float], None] = lambda _sentence, _fraction: None

    def describe(self, *, location: str) -> dict[str, Any]:
        """Import the engine; its versions and devices."""
        backend = self._load_backend(location)
        if find_spec("numpy") is None:
            raise errors.BackendMissingError(
                f"{backend.name} is measured with NumPy, which is not installed for {sys.executable}: "
                f"{_here('pip install')}"
            )
        return {
            "versions": dict(backend.versions()),
            "devices": [asdict(device) for device in backend.devices()],
            # Last: by now everything of the engine is loaded.
            "software": installed.read(backend.distributions, backend.build(), backend.environment(None)).to_json(),
        }

    def open(
        self,
        *,
        location: str,
        path: str,
        quant: str,
        device: str,
        threads: int,
        chunk: int,
        settings: dict[str, str],
        witness: str = "",
    ) -> dict[str, Any]:
        """Load a model, for a witness if one is named; refuse an engine that is on another device than asked for."""
        backend = self._load_backend(location)
        if backend.format == "pth":
            from pytest_rwkvperf.models import pth_check

            pth_check.load(Path(path))
        # Some engines import NumPy with their first logits only, which adds 0.2 s to an unwarmed repetition.
        import_module("numpy")
        request = OpenRequest(Path(path), quant, device, threads, chunk, MappingProxyType(settings))
        opened, elapsed, build = _timed_open(backend, witnesses.load(witness).watched(request) if witness else request)
        if opened.device.id != device:
            raise errors.DeviceError(f"{backend.name} was asked for {device} and took {opened.device.id}")
        self._opened, self._chunk = opened, chunk
        if not isinstance(opened, Program):
            self._repetitions = protocol.Repetitions(opened.vocabulary)
        # Without this, each collection before a sample visits all of torch's objects, for 90 ms.
        gc.collect()
        gc.freeze()
        return {
            "load_nanoseconds": elapsed,
            "build_nanoseconds": build,
            "device": asdict(opened.device),
            "versions": dict(backend.versions()),
        }

    def import_engine(self, *, location: str) -> dict[str, Any]:
        """Import a backend's engine, so that opening a model finds it there."""
        self._load_backend(location).build()
        return {}

    def sample(self, *, workload: str, known: bool = False) -> dict[str, Any]:
        """One timed repetition of a workload, with new tokens or with the known prompt's."""
        return self._timed(protocol.run, workload, known=known)

    def slice(self, *, workload: str, start: int, count: int, known: bool = False) -> dict[str, Any]:
        """Some tokens of a generation, timed; the next slice continues from their state."""
        return self._timed(protocol.run_slice, workload, start, count, known=known)

    def _timed(self, run: Callable[..., Sample], workload: str, *arguments: int, known: bool) -> dict[str, Any]:
        """Time with the garbage collector off."""
        parsed = Workload.parse(workload)
        engine = self._advancing(parsed)
        gc.collect()
        gc.disable()
        try:
            return asdict(run(engine, parsed, self._chunk, self._repetitions, *arguments, known=known))
        finally:
            gc.enable()

    def device_time(self, *, workload: str, settling: int) -> dict[str, Any] | None:
        """What a CUDA device does in one repetition, after `settling` that do not count; None without cupti-python."""
        from pytest_rwkvperf.machine import cupti

        if not cupti.installed():
            return None
        parsed = Workload.parse(workload)
        recorded = cupti.record(self._watched(parsed), self._repeating(parsed), settling)
        return asdict(cupti.summed(recorded, parsed.total_tokens))

    def count_work(self, *, witness: str, workload: str) -> dict[str, Any]:
        """What the witness that the model was opened for counts in one repetition of a workload."""
        parsed, loaded = Workload.parse(workload), witnesses.load(witness)
        counted = loaded.count(self._watched(parsed), self._repeating(parsed), parsed.total_tokens)
        return {
            "instrument": loaded.instrument(),
            "instruction_set": loaded.instruction_set(),
            "count": asdict(counted),
        }

    def native(self, *, workloads: list[str]) -> dict[str, Any]:
        """One invocation of the engine's own tool, with all workloads."""
        opened = self._model()
        parsed = [Workload.parse(name) for name in workloads]
        gc.collect()
        return asdict(native.run(self._engine_name, opened, parsed, self._chunk, self.report))

    def answer(self, *, expected: str, noise: float) -> dict[str, Any]:
        """What the last repetition, of the known prompt, ended with against the oracle's logits in a file.

        Of a batch one sequence had the known prompt.
        """
        import numpy as np

        from pytest_rwkvperf.oracle.agreement import agreement

        row = self._repetitions.known_sequence(len(self._repetitions.tokens))
        found = agreement(self._last_logits()[row], np.load(expected, allow_pickle=False), noise)
        return {"sequence": row, "agreement": asdict(found)}

    def keep(self, *, workload: str, known: bool = False) -> None:
        """Keep what the last repetition ended with, for `kept_answer`: one for each workload.

        Of a batch some sequences', without the one that had the known prompt and was compared.
        """
        from pytest_rwkvperf.worker import parity

        self._kept[workload] = parity.kept(
            self._repetitions, Workload.parse(workload), self._last_logits(), known=known
        )

    def kept_answer(self, *, workload: str, noise: float) -> dict[str, Any]:
        """What a kept repetition ended with against the engine's logits for its tokens alone and in other pieces."""
        from pytest_rwkvperf.worker import parity

        parsed, answers = Workload.parse(workload), self._kept[workload]
        return asdict(parity.worst_in_pieces(self._engine(), self._chunk, parsed, answers, noise))

    def _last_logits(self) -> Floats:
        """The last repetition's logits of every sequence: float32 [sequences, vocabulary]."""
        logits = self._repetitions.logits
        if logits is None:
            raise errors.ProtocolError("no repetition has been timed in this worker; send `sample` first")
        return logits.reshape(len(self._repetitions.tokens), -1)

    def parity(self, *, expected: list[str], noise: float, fresh: int = 0) -> dict[str, Any]:
        """The engine's logits against the oracle's: the short check, and the deep one when its logits are named.

        With `fresh` also the check of that number of new tokens.
        """
        import numpy as np

        from pytest_rwkvperf.worker import parity

        engine, logits = self._engine(), [np.load(path, allow_pickle=False) for path in expected]
        checks = {"short": asdict(parity.short(engine, self._chunk, logits[0], noise)), "deep": None, "fresh": None}
        if len(logits) > 1:
            checks["deep"] = asdict(parity.deep(engine, self._chunk, logits[1], noise))
        if fresh:
            checks["fresh"] = asdict(parity.fresh(engine, self._chunk, fresh, protocol.unforeseeable()))
        return checks

    def batch_parity(self, *, sequences: int, expected: list[str], noise: float) -> dict[str, Any]:
        """The check of a batch: against the oracle's logits after each of its lengths, and against single sequences."""
        import numpy as np

        from pytest_rwkvperf.worker import parity

        logits = [np.load(path, allow_pickle=False) for path in expected]
        source = protocol.unforeseeable()
        return asdict(parity.batch(self._engine(), self._batch_of(sequences), self._chunk, logits, noise, source))

    def solve(
        self,
        *,
        path: str,
        format: Format,
        emulation: str,
        seed: int,
        targets: dict[str, str],
    ) -> None:
        """The oracle's logits for a model file, after each of these numbers of tokens of a prompt, in one pass."""
        import numpy as np

        from pytest_rwkvperf.oracle import dequantized
        from pytest_rwkvperf.oracle import emulation as emulations
        from pytest_rwkvperf.oracle.rwkv7 import Oracle

        oracle, done = Oracle(emulations.applied(dequantized.read(Path(path), format), emulation)), 0
        for count in sorted(map(int, targets)):
            logits = oracle.forward(protocol.token_ids(count, oracle.shape.vocabulary, seed)[done:])
            done = count
            # By its name, np.save would write to another one that ends in .npy.
            with Path(targets[str(count)]).open("wb") as file:
                np.save(file, logits, allow_pickle=False)

    def memory(self) -> dict[str, int]:
        """Peak resident memory so far: of this process, or of the program that it runs."""
        program = self._opened if isinstance(self._opened, Program) else None
        return {"peak_rss_bytes": program.peak_rss_bytes if program else peak_rss_bytes()}

    def probe_version(self) -> str:
        """The version of the probes, of their NumPy and BLAS."""
        from pytest_rwkvperf.machine import probe_work

        return probe_work.version()

    def probe(self, *, kind: ProbeKind, threads: int) -> int:
        """Nanoseconds of a fixed piece of work."""
        from pytest_rwkvperf.machine.probe_work import ProbeWork

        if threads not in self._probe_work:
            self._probe_work[threads] = ProbeWork(threads)
        return self._probe_work[threads].time(kind)

    def ceilings(self, *, address: str) -> dict[str, Any]:
        """The ceilings of the CUDA device at a PCI address, by torch."""
        from pytest_rwkvperf.machine import ceilings

        try:
            return ceilings.measure(address)
        except ImportError as error:
            raise errors.DeviceError("torch is not installed; it times the device's ceilings") from error

    def clear(self) -> None:
        """Reset the recurrent state."""
        self._engine().clear()

    def prefill(self, *, tokens: list[int]) -> None:
        """Advance by tokens, in chunks as the measurements do."""
        protocol.prefill(self._engine(), tokens, self._chunk)

    def decode(self, *, token: int) -> None:
        """Advance by one token along the generation path."""
        protocol.check_tokens(self._engine(), [token])
        self._engine().decode(token)

    def logits(self) -> str:
        """The last logits, float32 little-endian in base64."""
        return b64encode(self._engine().logits().astype("<f4").tobytes()).decode()

    def inspect_pth(self, *, path: str) -> dict[str, Any]:
        """Shape, precision and hash of a `.pth`, read safely."""
        from pytest_rwkvperf.models import derive

        return derive.inspect_pth(Path(path), self.report).to_json()

    def convert_pth(
        self,
        *,
        source: str,
        target: str,
        format: Format,
        precision: Precision | None,
    ) -> dict[str, Any]:
        """Write another format from a `.pth`; what that changed in the weights."""
        from pytest_rwkvperf.models import derive

        return asdict(derive.convert_pth(Path(source), Path(target), format, self.report, precision))

    def quantize(self, *, source: str, target: str, quant: str) -> None:
        """Make a quantized `.gguf` with llama.cpp."""
        from pytest_rwkvperf.backends.llama_cpp import BACKEND

        with _missing_is_clear(BACKEND):
            BACKEND.quantize(Path(source), Path(target), quant)

    def _load_backend(self, location: str) -> Backend:
        if self._backend is None:
            backend = registry.load(location)
            with _missing_is_clear(backend):
                backend.versions()
                backend.devices()
            self._backend = backend
        return self._backend

    def _repeating(self, workload: Workload) -> Callable[[Engine], int]:
        """A function that times one repetition of a workload with an engine, in nanoseconds."""
        return lambda engine: protocol.run(engine, workload, self._chunk, self._repetitions).nanoseconds

    @property
    def _engine_name(self) -> str:
        assert self._backend is not None  # noqa: S101 - a model is open
        return self._backend.name

    def _model(self) -> Engine | Program:
        if self._opened is None:
            raise errors.ProtocolError("no model is open in this worker; send `open` first")
        return self._opened

    def _advancing(self, workload: Workload) -> Engine | Batch:
        """What runs a workload: the engine itself, or a batch of it."""
        return self._batch_of(workload.batch) if workload.batch > 1 else self._engine()

    def _watched(self, workload: Workload) -> Engine:
        """The same for witnesses and CUPTI, which watch the calls that an engine and a batch have in common."""
        return cast("Engine", self._advancing(workload))

    def _batch_of(self, sequences: int) -> Batch:
        """The batch of this number of sequences, made anew where the last one had another number."""
        if self._batch is None or self._batch.sequences != sequences:
            engine = self._engine()
            if not isinstance(engine, Batching):
                raise errors.BackendError(
                    f"{self._engine_name} declares max_batch above 1, but its engine has no method batch (Batching in "
                    "core/engine.py): add the method, or leave max_batch out of the backend; until then measure "
                    f"without @b{sequences}"
                )
            self._batch = None
            self._repetitions.forget_batches()
            self._batch = engine.batch(sequences)
        return self._batch

    def _engine(self) -> Engine:
        opened = self._model()
        if isinstance(opened, Program):
            message = f"{self._engine_name} runs whole benchmarks only; use llama-cpp or web-rwkv to drive an engine"
            raise errors.BackendError(message)
        return opened


_REQUESTS = {name: method for name, method in vars(Child).items() if not name.startswith("_")}


def _timed_open(backend: Backend, request: OpenRequest) -> tuple[Engine | Program, int, int]:
    """What a backend opens, with the nanoseconds to load the model and to build the engine's own kernels."""
    started = time.perf_counter_ns()
    opened = backend.open(request)
    if not isinstance(opened, Program):
        opened.synchronise()
    build = int(opened.build_seconds * 1e9) if isinstance(opened, CompilesKernels) else 0
    return opened, time.perf_counter_ns() - started - build, build


@contextmanager
def _missing_is_clear(backend: Backend) -> Iterator[None]:
    """Turn an engine's import error into a message that says how to install it."""
    try:
        yield
    except ImportError as error:
        message = f"{backend.name} is not installed for {sys.executable} ({error}): {_here(backend.install)}"
        raise errors.BackendMissingError(message) from error


def _here(install: str) -> str:
    """A command that installs an engine, for this interpreter, whose pip may be another; with NumPy where that lacks.

    A worker computes with NumPy, which not every engine brings.
    """
    lacking = "" if find_spec("numpy") else " numpy"
    return install.replace("pip install", f"{shlex.quote(sys.executable)} -m pip install{lacking}", 1)


def main(requests: int, replies: int) -> None:
    """Answer requests until the pipe closes or a `close` comes."""
    out = os.fdopen(replies, "wb", buffering=0)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, inbox), daemon=True).start()
    out.write(encode({"hello": {"pid": os.getpid(), "python": sys.version.split()[0]}}))
    child = Child()
    while True:
        request = decode(inbox.get())
        if request["do"] == "close":
            out.write(encode({"id": request["id"], "done": None}))
            # Skip engines' destructors, which have crashed and hung.
            os._exit(0)
        child.report = partial(_report, out, request["id"])
        _send(out, _encoded(request["id"], _answer(child, request)))


def _read(requests: int, inbox: queue.SimpleQueue[bytes]) -> None:
    """Queue requests; end this process when the parent closes the pipe, even inside native code."""
    with os.fdopen(requests, "rb") as source:
        for line in source:
            inbox.put(line)
    os._exit(1)


def _encoded(number: int, answer: dict[str, Any]) -> bytes:
    """An answer as a message; NaN and infinity become an error."""
    try:
        return encode({"id": number, **answer})
    except ValueError as error:
        message = f"a figure of the engine is NaN or infinite: {error}; measure again"
        return encode({"id": number, "failed": {"kind": "MeasurementError", "message": message}})


def _send(out: FileIO, message: bytes) -> None:
    """Write a whole message, where one write to the pipe may take a part of it."""
    view = memoryview(message)
    while view:
        view = view[out.write(view) :]


def _report(out: FileIO, number: int, sentence: str, fraction: float) -> None:
    _send(out, encode({"id": number, "progress": [sentence, fraction]}))


def _answer(child: Child, request: dict[str, Any]) -> dict[str, Any]:
    """Run one request. Catches BaseException, which a Rust panic is."""
    try:
        return {"done": _REQUESTS[request["do"]](child, **request["with"])}
    except BaseException as error:  # noqa: BLE001 - sent to the parent
        if not isinstance(error, errors.RwkvPerfError):
            traceback.print_exc()
        return {"failed": {"kind": type(error).__name__, "message": str(error) or repr(error)}}
