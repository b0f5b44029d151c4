"""One measuring of each case, whoever asks for it first; the others read its record from the run's folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_rwkvperf.core import errors, folders, locks
from pytest_rwkvperf.core.atomic import write_atomically
from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.machine import roofline
from pytest_rwkvperf.measure import measurement, pairs, plan, process, record
from pytest_rwkvperf.measure.record import CaseRecord, Pairing
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.oracle import checked, expected
from pytest_rwkvperf.worker.parent import IMPORT_SECONDS, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pytest_rwkvperf.core.cases import Case, Workload
    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.models.header import Header
    from pytest_rwkvperf.models.model import Model, ModelFile
    from pytest_rwkvperf.run.discovery import Found
    from pytest_rwkvperf.run.progress import Progress
    from pytest_rwkvperf.worker.tools import WorkerTools


_Kept = TypeVar("_Kept", CaseRecord, Pairing)

_SUFFIXES: Mapping[type[CaseRecord | Pairing], str] = {CaseRecord: ".json", Pairing: ".pair"}
"""Of the file in which what was taken is kept for the run's other processes."""

_PROCESSOR = "cpu"


@dataclass(frozen=True, slots=True)
class Share:
    """What a case is measured for, and what it shares with the run's other cases: seconds, and how many they are.

    `label` is what people are told instead of the case, and no other of the run has it.
    """

    label: str
    workloads: tuple[Workload, ...]
    precision: float
    budget_seconds: float
    cases: int
    handovers: Mapping[str, float] = field(default_factory=dict)
    """What is known of this machine's, for measure.probes.Prober."""


class Launcher:
    """Measures cases for a session. Several processes may share `folder` (pytest-xdist)."""

    def __init__(
        self,
        folder: Path,
        engines: Mapping[str, Found],
        model: Callable[[], Model],
        tools: WorkerTools,
        say: Progress,
    ) -> None:
        self._folder = folder
        self._engines = engines
        self._model = model
        self._tools = tools
        self._models = ModelStore(tools, self.progress)
        self._say = say
        self._spent: dict[str, float] = {}

    def record(self, case: Case, share: Share, decided: Callable[[CaseRecord], bool] | None = None) -> CaseRecord:
        """The case's record: measured now under its device's lease, or read when someone has measured it.

        Raises:
            RwkvPerfError: measuring failed, here or for whoever tried first.
        """

        def measured(engine: Found, device: Device) -> CaseRecord:
            return self._measure(case, engine, device, share, decided)

        return self._once(case, share.label, CaseRecord, measured)

    def pairing(
        self, case: Case, share: Share, old: Mapping[str, Found], decided: Callable[[Pairing], bool]
    ) -> Pairing:
        """The case measured in alternation with another environment, whose engines are `old`; else as `record`.

        Raises:
            DeviceError: the other environment's engine does not list the case's device.
            RwkvPerfError: as `record`.
        """
        other = old[case.backend]
        return self._once(
            case,
            share.label,
            Pairing,
            lambda engine, device: self._measure_pairs(
                case, ((engine, device), (other, _same_device(device, other))), share, decided
            ),
        )

    def _once(self, case: Case, label: str, kind: type[_Kept], make: Callable[[Found, Device], _Kept]) -> _Kept:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = _path(self._folder, case, _SUFFIXES[kind])
        if path.exists():  # before the lease: another session may hold it for as long as it measures
            return record.from_json(path.read_bytes(), kind)
        engine = self._engines[case.backend]
        device = next(device for device in engine.devices if device.id == case.device)
        gpus = [hardware(one) for found in self._engines.values() for one in found.devices if one.kind == "gpu"]
        with lease(device, self._say.line, gpus):
            if path.exists():
                return record.from_json(path.read_bytes(), kind)
            if known := failure(self._folder, case):
                error_kind, _, sentence = known.partition(": ")
                raise errors.from_name(error_kind, sentence)
            try:
                taken = make(engine, device)
            except errors.RwkvPerfError as error:
                sentence = f"{type(error).__name__}: {error}"
                _keep(_path(self._folder, case, ".failure"), sentence.encode(errors="backslashreplace"))
                raise
            _keep(path, record.to_json(taken))
            self._say.line(measurement.summary(taken, label))
            return taken

    def _measure(
        self, case: Case, engine: Found, device: Device, share: Share, decided: Callable[[CaseRecord], bool] | None
    ) -> CaseRecord:
        target, memo = self._target(case, engine, device)
        if note := engine.backend.announcement(case.quant):
            self._say.line(f"{share.label}: {note}")
        limits = plan.Plan(share.precision, self._budget(share), decided, share.handovers)
        taken = plan.measure(target, share.workloads, limits, self._saying(share.label))
        _keep_deep(memo, target, taken)
        return taken

    def _measure_pairs(
        self,
        case: Case,
        sides: tuple[tuple[Found, Device], tuple[Found, Device]],
        share: Share,
        decided: Callable[[Pairing], bool],
    ) -> Pairing:
        targets = [self._target(case, engine, device) for engine, device in sides]
        (new, _), (old, _) = targets
        taken = pairs.measure_pairs(new, old, share.workloads, self._budget(share), decided, self._saying(share.label))
        for (target, memo), side in zip(targets, (taken.new, taken.old), strict=True):
            _keep_deep(memo, target, side)
        return taken

    def _saying(self, label: str) -> Callable[[str], None]:
        return lambda sentence: self._say(f"{label}: {sentence}")

    def _target(self, case: Case, engine: Found, device: Device) -> tuple[process.Target, checked.DeepCheckCache]:
        """Everything a worker needs for a case in an engine's environment, and where its deep check is remembered."""
        file = self.file(engine, case.quant)
        model = self._model()
        # Another environment may have another build of the same version: what was found here says nothing about it.
        build = {} if engine.python == sys.executable else {"interpreter": engine.python}
        memo = checked.DeepCheckCache({**engine.versions, **build}, file.content_hash, case.quant, device, case.chunk)
        known = memo.load()
        emulation = engine.backend.emulation(case.quant)
        answers = (
            expected.logits_files(file, emulation, deep=known is None, solver=self._tools)
            if engine.backend.tells_logits
            else []
        )
        return process.Target(
            case=case,
            location=engine.location,
            environment=engine.backend.environment(case.device),
            python=engine.python,
            model=_facts(model, file, self._models.header(file)),
            path=file.path,
            device=device,
            expected=tuple(answers),
            known_deep=known,
            work=roofline.work_of(model.shape, file, case.quant, case.backend, device.kind),
            ceilings=self._ceilings(device),
        ), memo

    def _ceilings(self, device: Device) -> roofline.Ceilings | None:
        """What a GPU can reach, timed once a run. None for a CPU, whose probes tell it, and without torch."""
        if device.kind != "gpu" or not device.physical:
            return None
        path = self._folder / f"{device.physical.replace(':', '-')}.ceilings"
        if not path.exists():
            write_atomically(path, json.dumps(self._timed_ceilings(device)).encode())
        told = json.loads(path.read_text(encoding="utf-8"))
        return roofline.Ceilings(**told) if told else None

    def _timed_ceilings(self, device: Device) -> dict[str, Any] | None:
        self._say(f"{device.id}: timing what {device.name} can reach")
        try:
            with Worker() as worker:
                told: dict[str, Any] = worker.request("ceilings", IMPORT_SECONDS, address=device.physical)
        except errors.RwkvPerfError as error:
            self._say.line(f"{device.id}: no share of the hardware's limits is told: {str(error).splitlines()[0]}")
            return None
        return told

    def _budget(self, share: Share) -> float:
        """An equal part of what the cases before have left of the budget; nothing when they have overdrawn it."""
        self._note_spent()
        left = share.budget_seconds - sum(self._spent.values())
        return max(0.0, left) / max(1, share.cases - len(self._spent))

    def _note_spent(self) -> None:
        """Add what the cases that have ended since have taken, failed ones nothing.

        A run may have hundreds: each record is read once, and no path of it is kept.
        """
        with os.scandir(self._folder) as entries:
            for entry in entries:
                suffix = entry.name.rpartition(".")[2]
                if suffix in _SECONDS and entry.name not in self._spent:
                    self._spent[entry.name] = _SECONDS[suffix](Path(entry.path))

    def file(self, engine: Found, quant: str) -> ModelFile:
        """The model file that an engine reads for a quant, derived and cached when need be."""
        backend = engine.backend
        return self._models.file_for(self._model(), backend.format, backend.file_quant(quant))

    def progress(self, sentence: str, fraction: float) -> None:
        """Long work on files, as a line."""
        self._say(f"{sentence} {fraction:.0%}")


_SECONDS: Mapping[str, Callable[[Path], float]] = {
    "json": lambda path: record.from_json(path.read_bytes(), CaseRecord).seconds,
    "pair": lambda path: record.from_json(path.read_bytes(), Pairing).new.seconds,
    "failure": lambda _path: 0.0,
}
"""What a case has taken, by what it has left in the run's folder."""


def hardware(device: Device) -> str:
    """The name of what a device occupies: its GPU's address, or `cpu` for processors and what computes on them."""
    return (device.physical or device.id).replace(":", "-") if device.kind == "gpu" else _PROCESSOR


@contextmanager
def lease(device: Device, say: Callable[[str], None], gpus: Iterable[str] = ()) -> Iterator[None]:
    """Hold a device for this process alone: one measurement at a time, across sessions of this user.

    The lock is the operating system's, so that a killed holder frees it. CPU and software adapters are one device, and
    whoever measures on it holds every GPU too: `gpus`, by `hardware`'s names, and those that were leased before. An
    engine on a GPU needs a processor to launch its kernels, one on the CPU needs all of them.
    """
    folder = folders.cache() / "leases"
    folder.mkdir(parents=True, exist_ok=True)
    names = [hardware(device)]
    if names == [_PROCESSOR]:
        known = {path.stem for path in folder.glob("*.lock")} | set(gpus)
        # In one order for everybody, so that nobody waits in a ring.
        names = [*sorted(known - {_PROCESSOR}), _PROCESSOR]
    with ExitStack() as stack:
        for name in names:
            told = f"waiting for {name}: another session measures on it"
            waiting = partial(_waiting, say, told)
            stack.enter_context(locks.hold(folder / f"{name}.lock", on_wait=waiting))
        yield


def _waiting(say: Callable[[str], None], told: str, holder: str) -> None:
    say(f"{told} ({holder})")


def _path(folder: Path, case: Case, suffix: str) -> Path:
    return folder / f"{hashlib.sha256(case.key.encode()).hexdigest()[:24]}{suffix}"


def failure(folder: Path, case: Case) -> str:
    """Why measuring a case failed, as `KIND: sentence`; empty when it did not."""
    path = _path(folder, case, ".failure")
    return path.read_text(encoding="utf-8") if path.exists() else ""


def records(folder: Path) -> Sequence[CaseRecord]:
    """Every record of a run's folder, in a stable order.

    Raises:
        MeasurementError: one of them cannot be read.
    """
    return _all(folder, CaseRecord)


def pairings(folder: Path) -> Sequence[Pairing]:
    """Every pairing of a run's folder, in a stable order.

    Raises:
        MeasurementError: one of them cannot be read.
    """
    return _all(folder, Pairing)


def _all(folder: Path, kind: type[_Kept]) -> list[_Kept]:
    return [record.from_json(path.read_bytes(), kind) for path in sorted(folder.glob(f"*{_SUFFIXES[kind]}"))]


def _same_device(device: Device, other: Found) -> Device:
    """Another environment's own description of a device.

    Raises:
        DeviceError: it lists none of this id and kind.
    """
    for one in other.devices:
        if (one.id, one.kind) == (device.id, device.kind):
            return one
    there = ", ".join(one.id for one in other.devices)
    raise errors.DeviceError(
        f"{other.python}: {other.backend.name} lists no {device.id} of kind {device.kind}, only {there}; "
        "choose with --rwkv-device one that both environments have"
    )


def _facts(model: Model, file: ModelFile, header: Header) -> record.ModelFacts:
    shape, tensors = model.shape, header.tensors.values()
    return record.ModelFacts(
        name=model.name,
        content_hash=model.content_hash,
        parameters=shape.parameters,
        file_bytes=file.size_bytes,
        file_name=printable(file.path.name),
        layers=shape.layers,
        width=shape.width,
        tensor_bytes=sum(one.nbytes for one in tensors),
        tensor_elements=sum(math.prod(one.shape) for one in tensors),
    )


def _keep(path: Path, data: bytes) -> None:
    """Leave something for the run's other processes.

    Raises:
        StorageError: the disk refuses.
    """
    try:
        write_atomically(path, data)
    except OSError as error:
        raise errors.StorageError(
            f"{path} cannot be written: {error}; make room, or point the cache elsewhere (XDG_CACHE_HOME on Linux)"
        ) from error


def _keep_deep(memo: checked.DeepCheckCache, target: process.Target, taken: CaseRecord) -> None:
    if target.known_deep is None and taken.deep is not None:
        memo.store(taken.deep)
