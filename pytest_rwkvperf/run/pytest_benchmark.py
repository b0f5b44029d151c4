"""Pass samples to pytest-benchmark through its public fixture, so that its table, JSON and compare work on them.

Nothing is timed again: the fixture gets a clock that each recorded sample advances. Only a run that asks for something
of pytest-benchmark's gives it samples, because its table would push the verdicts off the screen.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_rwkvperf.measure.measurement import Measurement

_ASKING = tuple(
    f"--benchmark-{name}"
    for name in (
        *("autosave", "columns", "compare", "enable", "group-by", "histogram", "json", "name", "only", "save", "sort"),
        *("time-unit", "verbose"),
    )
)
"""The options of pytest-benchmark, or their beginnings, that ask for its table, its files or its comparison."""


_FIXTURE = "benchmark"
"""The fixture by which pytest-benchmark knows what --benchmark-only leaves."""

_SHOWN: pytest.StashKey[list[list[str]]] = pytest.StashKey()
"""On the config, until collection ends: the lists of fixtures to which pytest-benchmark's was added."""


def show_fixture(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Under --benchmark-only, add pytest-benchmark's fixture to those of our tests until `hide_fixture`.

    They ask for it only while they run, when there are samples to give it.
    """
    if not config.getoption("benchmark_only", default=False):
        return
    measuring = (item for item in items if isinstance(item, pytest.Function) and "rwkv_perf" in item.fixturenames)
    # The tests of one function share their list.
    lists = {id(item.fixturenames): item.fixturenames for item in measuring if _FIXTURE not in item.fixturenames}
    config.stash[_SHOWN] = [*lists.values()]
    for names in config.stash[_SHOWN]:
        names.append(_FIXTURE)


def hide_fixture(config: pytest.Config) -> None:
    """Take back what `show_fixture` did."""
    for names in config.stash.get(_SHOWN, []):
        names.remove(_FIXTURE)


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


def is_asked(config: pytest.Config) -> bool:
    """Whether a run asks for something of pytest-benchmark's, on the command line, in an ini file or a variable."""
    if not config.pluginmanager.hasplugin("benchmark") or config.getoption("--benchmark-skip"):
        return False
    variable = shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))
    words = (*config.invocation_params.args, *config.getini("addopts"), *variable)
    return any(str(word).startswith(_ASKING) for word in words)


def name_item(request: pytest.FixtureRequest, item_id: str) -> None:
    """Where a test uses `benchmark` itself, give it the item's id as a parameter: its JSON has no form for an Item."""
    if _FIXTURE in request.node.fixturenames and request.config.pluginmanager.hasplugin("benchmark"):
        _name(request.getfixturevalue(_FIXTURE), item_id)


def _name(benchmark: Any, item_id: str) -> None:  # noqa: ANN401 - pytest-benchmark has no types
    benchmark.params = {**benchmark.params, "rwkv_perf": item_id}


def publish(request: pytest.FixtureRequest, measurement: Measurement, item_id: str) -> None:
    """Replay a measurement's samples in a test's `benchmark` fixture, with the case in `extra_info`.

    Do nothing unless the run asks for it, or if the test uses the fixture itself: it works only once.
    """
    if _FIXTURE in request.node.fixturenames or not is_asked(request.config):
        return
    request.node.add_marker(_marker(str(measurement.workload)))
    benchmark = request.getfixturevalue(_FIXTURE)
    _name(benchmark, item_id)
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
