"""A case while it is measured: what its processes have left so far, from which its record is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_rwkvperf.measure.record import CaseRecord
from pytest_rwkvperf.worker import native, protocol

if TYPE_CHECKING:
    from pytest_rwkvperf.machine.conditions import Watch
    from pytest_rwkvperf.machine.watching import GpuWatch
    from pytest_rwkvperf.measure.process import Process, Target
    from pytest_rwkvperf.measure.record import EndedBy, ProcessRun
    from pytest_rwkvperf.oracle.agreement import Deep


@dataclass(slots=True)
class MeasuredCase:
    """A target, and what its processes have left so far."""

    target: Target
    runs: list[ProcessRun] = field(default_factory=list)
    _versions: dict[str, str] = field(default_factory=dict)
    _deep: Deep | None = None

    @property
    def deep_due(self) -> bool:
        """Whether the next process makes the deep check: the first one does, unless an earlier session has."""
        return not self.runs and self.target.known_deep is None

    def add(self, process: Process, run: ProcessRun) -> None:
        """Keep what a process has left."""
        self.runs.append(run)
        self._versions = process.versions
        self._deep = self._deep or process.deep

    def record(
        self, ended_by: EndedBy, *, seconds: float, watch: Watch, gpu: GpuWatch, probe_version: str = ""
    ) -> CaseRecord:
        """What has been measured until now, in so many seconds."""
        target = self.target
        return CaseRecord(
            case=target.case,
            model=target.model,
            device=target.device,
            versions=self._versions,
            protocol=native.VERSION if target.case.protocol == "native" else protocol.VERSION,
            deep=target.known_deep or self._deep,
            ended_by=ended_by,
            seconds=seconds,
            conditions=watch.conditions(),
            runs=tuple(self.runs),
            probe_version=probe_version,
            gpu=gpu.conditions(),
            work=target.work,
            ceilings=target.ceilings,
        )
