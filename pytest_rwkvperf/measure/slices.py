"""Generations timed in slices, between which the other side of an A/B pair runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.measure.process import timed
from pytest_rwkvperf.measure.sampling import Sampling
from pytest_rwkvperf.worker import parent, protocol

if TYPE_CHECKING:
    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.core.samples import Sample
    from pytest_rwkvperf.measure.process import Process

SLICE_SECONDS = 0.1
"""A shared machine's speed changes within seconds, so that slices of a tenth of a second on both sides are slowed
alike."""


class SlicedSampling(Sampling):
    """As `Sampling`, with generations that can be interrupted between tokens."""

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self._slices: list[Sample] = []

    def slice_tokens(self, workload: Workload) -> int:
        """How many tokens a slice of about SLICE_SECONDS has, by the warm-up."""
        return max(1, round(SLICE_SECONDS / self.token_seconds(workload)))

    def take_slice(self, workload: Workload, start: int, count: int) -> None:
        """Time `count` tokens of a generation from its `start`th on; the last slice completes a sample.

        Raises:
            RwkvPerfError: as `take`.
        """
        if start == 0:
            self.settle(workload)
            self._slices = []
        answer = self.process.worker.request(
            "slice", parent.SAMPLE_SECONDS, workload=str(workload), start=start, count=count
        )
        self._slices.append(timed(answer, workload))
        if start + count >= workload.tokens:
            self.keep(workload, protocol.joined(self._slices))
