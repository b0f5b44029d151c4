"""What a worker needs to measure a case: the model file, the expected logits, and the hardware's limits."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core import errors
from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.environments import twins
from pytest_rwkvperf.environments.builders.llama_cpp import LIBRARIES
from pytest_rwkvperf.machine import roofline
from pytest_rwkvperf.measure import process, record
from pytest_rwkvperf.oracle import deep_checks, expected
from pytest_rwkvperf.run.tested_model import TestedModel
from pytest_rwkvperf.worker.parent import IMPORT_SECONDS, Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.core.cases import Case, Workload
    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.models.header import Header
    from pytest_rwkvperf.models.model import Model, ModelFile
    from pytest_rwkvperf.run.discovery import FoundEngine
    from pytest_rwkvperf.run.folder import RunFolder
    from pytest_rwkvperf.run.progress import Progress
    from pytest_rwkvperf.witnesses.witness import Witness


class Targets:
    """Prepares cases of one model for measuring."""

    def __init__(self, folder: RunFolder, model: TestedModel, progress: Progress) -> None:
        self._folder = folder
        self._model = model
        self._progress = progress

    def prepare(
        self, case: Case, engine: FoundEngine, device: Device, workloads: Sequence[Workload]
    ) -> tuple[process.Target, deep_checks.DeepCheckCache]:
        """A case in an engine's environment, and where its deep check of the answers is remembered.

        Raises:
            RwkvPerfError: the model file or the right answer cannot be made.
        """
        file = self._model.file_of(engine.backend, case.quant)
        model = self._model.model
        memo = deep_checks.DeepCheckCache(engine.software.identity, file.content_hash, case, device)
        known = memo.load()
        emulation = engine.backend.emulation(case.quant)
        tools, tells = self._model.tools, engine.backend.tells_logits
        answers = expected.logits_files(file, emulation, deep=known is None, solver=tools) if tells else []
        uniform = tells and case.protocol == "uniform"
        batched = tells and any(workload.batch > 1 for workload in workloads)
        return process.Target(
            case=case,
            location=engine.location,
            environment={**engine.backend.environment(case.device), **engine.variables},
            python=engine.python,
            build=engine.place,
            model=_facts(model, file, self._model.header(file)),
            path=file.path,
            device=device,
            expected=tuple(answers),
            known_deep=known,
            known_answers=expected.known_answers(file, emulation, workloads, tools) if uniform else {},
            batch_expected=tuple(expected.batch_files(file, emulation, tools)) if batched else (),
            longest=_longest(case, workloads),
            work=roofline.work_of(model.shape, file, case.quant, case.backend, device.kind),
            ceilings=self._ceilings(device),
            software=engine.software,
        ), memo

    def seen_by(self, witness: Witness, target: process.Target, engine: FoundEngine) -> process.Target:
        """The case as a witness counts it: on its own model, and by a build of the engine that it can execute.

        Raises:
            DeviceError: this machine does not have its instrument.
            RwkvPerfError: the model or the build cannot be made.
        """
        if absence := witness.absence():
            raise errors.DeviceError(absence)
        if witness.shape:
            path = TestedModel(witness.shape, self._progress).file_of(engine.backend, target.case.quant).path
            target = replace(target, path=path, case=replace(target.case, model=witness.shape, threads=1))
        if variables := witness.build_variables(engine.software.build):
            own = engine.backend.distributions
            elsewhere = target.environment.get(LIBRARIES, os.environ.get(LIBRARIES))
            python = twins.python_of(engine.software, own, variables, self._progress.line, libraries=elsewhere)
            target = replace(target, python=python)
        return target

    def _ceilings(self, device: Device) -> roofline.Ceilings | None:
        """What a GPU can reach, timed once a run. None for a CPU, whose probes tell it, and without torch."""
        if device.kind != "gpu" or not device.physical:
            return None
        ceilings = self._folder.ceilings(device.physical)
        if ceilings is None:
            ceilings = self._timed_ceilings(device)
            self._folder.keep_ceilings(device.physical, ceilings)
        return roofline.Ceilings(**ceilings) if ceilings else None

    def _timed_ceilings(self, device: Device) -> dict[str, Any]:
        self._progress(f"{device.id}: timing what {device.name} can reach")
        try:
            with Worker() as worker:
                ceilings: dict[str, Any] = worker.request("ceilings", IMPORT_SECONDS, address=device.physical)
        except errors.RwkvPerfError as error:
            reason = str(error).splitlines()[0]
            self._progress.line(f"{device.id}: no share of the hardware's limits is reported: {reason}")
            return {}
        return ceilings


def _longest(case: Case, workloads: Sequence[Workload]) -> int:
    """Tokens of the longest prompt that is timed; with its context where no timed answer can be compared."""
    native = case.protocol == "native"
    return max(2, *(workload.tokens + (workload.depth if native else 0) for workload in workloads))


def _facts(model: Model, file: ModelFile, header: Header) -> record.ModelFacts:
    tensors = header.tensors.values()
    return record.ModelFacts(
        name=model.name,
        content_hash=model.content_hash,
        parameters=model.shape.parameters,
        file_bytes=file.size_bytes,
        file_name=printable(file.path.name),
        layers=model.shape.layers,
        width=model.shape.width,
        tensor_bytes=sum(tensor.nbytes for tensor in tensors),
        tensor_elements=sum(math.prod(tensor.shape) for tensor in tensors),
    )
