"""The energy of a workload: counted from tick to tick of the GPU's counter."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from pytest_rwkvperf.cases import Workload
from pytest_rwkvperf.measure import process
from pytest_rwkvperf.measure.process import Process
from pytest_rwkvperf.measure.protocol import Sample

if TYPE_CHECKING:
    import pytest


class Repeating(Process):
    """A process whose samples cost nothing but counting."""

    def __init__(self) -> None:
        self._energy = {}
        self.count = 0

    def _sample(self, workload: Workload) -> Sample:
        self.count += workload.tokens
        return Sample(0.0, 1, ())


def test_the_counters_steps_bound_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "ENERGY_SECONDS", 0.05)
    ticks = itertools.chain([100, 100, 108, 5000, 5000], itertools.repeat(9108))
    repeating = Repeating()
    repeating.measure_energy([Workload("prefill", 512)], lambda: next(ticks))
    energy = repeating._energy["pp512"]
    assert (energy.tokens, energy.joules) == (repeating.count, 9.0)
    assert 0.05 <= energy.seconds < 2


def test_a_gpu_without_a_counter_has_no_energy() -> None:
    repeating = Repeating()
    repeating.measure_energy([Workload("prefill", 512)], lambda: None)
    assert (repeating._energy, repeating.count) == ({}, 0)
