"""Pass samples to pytest-benchmark through its public fixture, so that its table, JSON and compare work on them.

Nothing is timed again: the fixture gets a clock that each recorded sample advances.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_rwkvperf.measure.measurement import Measurement


class RecordedClock:
    """A timer in seconds that only `advance` moves."""

    __slots__ = ("_now",)

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """Seconds so far."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock."""
        self._now += seconds


CLOCK = RecordedClock()


@cache
def _marker(group: str) -> pytest.MarkDecorator:
    """The marker that sets the clock. Tests of a group share it, because each keeps it until the run ends."""
    return pytest.mark.benchmark(timer=CLOCK, warmup=False, group=group)


@cache
def _versions(items: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """The engine's versions, in a dictionary that tests share, as above."""
    return dict(items)


def publish(request: pytest.FixtureRequest, measurement: Measurement) -> None:
    """Replay a measurement's samples in a test's `benchmark` fixture, with the case in `extra_info`.

    Do nothing if pytest-benchmark is inactive or skips, or if the test uses the fixture itself: it works only once.
    """
    if not request.config.pluginmanager.hasplugin("benchmark") or request.config.getoption("--benchmark-skip"):
        return
    if "benchmark" in request.node.fixturenames:
        return
    request.node.add_marker(_marker(str(measurement.workload)))
    benchmark = request.getfixturevalue("benchmark")
    times = iter([sample.nanoseconds / 1e9 for row in measurement.samples for sample in row])
    case = measurement.record.case
    benchmark.extra_info.update(
        case=case.key,
        workload=str(measurement.workload),
        tokens_per_second=asdict(measurement.tokens_per_second),
        processes=[len(row) for row in measurement.samples],
        versions=_versions(tuple(measurement.record.versions.items())),
    )
    rounds = sum(len(row) for row in measurement.samples)
    benchmark.pedantic(lambda: CLOCK.advance(next(times)), rounds=rounds, iterations=1)
