from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.core.invariants import InvariantQuestion, Lengths, all_of
from pytest_rwkvperf.verdict.invariants import JudgedInvariant, describe, from_json, judge, to_json
from tests.unit.building import CASE, make_record, make_run

if TYPE_CHECKING:
    from pytest_rwkvperf.measure.record import CaseRecord

INVARIANTS = {each.name: each for each in all_of(Lengths(256, 16, 4))}


def measured(deep: float = 1.0, twice: float = 2.0, grown: int = 0, processes: int = 6) -> CaseRecord:
    """Processes of different speeds, in which each workload takes so many times as long as the one without context."""
    runs = []
    for index in range(processes):
        speed, spread = 1 + 0.2 * index, 1 + 0.001 * index
        times = {
            "tg4": (speed * 4e9, speed * 4.1e9),
            "tg4@d256": (speed * spread * deep * 4e9, speed * deep * 4.1e9),
            "pp16": (speed * 1e9, speed * 1.1e9),
            "pp16@d256": (speed * spread * deep * 1e9, speed * deep * 1.1e9),
            "pp32": (speed * spread * twice * 1e9, speed * twice * 1.1e9),
        }
        run = make_run(**{name: tuple(map(int, row)) for name, row in times.items()})  # type: ignore[arg-type]
        held = {"tg4": 100 << 20, "pp16": 120 << 20, "tg4@d256": (120 << 20) + grown, "pp16@d256": 120 << 20}
        runs.append(replace(run, memory=held))
    return make_record(*runs)


def judged(record: CaseRecord, name: str, tolerance: float = 0.05) -> JudgedInvariant:
    return judge(record, InvariantQuestion(CASE, INVARIANTS[name], tolerance), len(INVARIANTS))


@pytest.mark.parametrize("name", INVARIANTS)
def test_equal_workloads_hold_in_processes_of_any_speed(name: str) -> None:
    assert judged(measured(), name).verdict == "HOLDS"


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("generation-depth", {"deep"}),
        ("prefill-depth", {"deep"}),
        ("prefill-length", {"twice"}),
        ("memory-depth", {"grown"}),
    ],
)
def test_each_names_itself_and_no_other_breaks_it(name: str, broken: set[str]) -> None:
    assert judged(measured(deep=1.2), name).verdict == ("BROKEN" if "deep" in broken else "HOLDS")
    assert judged(measured(twice=2.4), name).verdict == ("BROKEN" if "twice" in broken else "HOLDS")
    assert judged(measured(grown=24 << 20), name).verdict == ("BROKEN" if "grown" in broken else "HOLDS")


def test_faster_with_depth_is_not_broken() -> None:
    assert judged(measured(deep=0.5), "generation-depth").verdict == "HOLDS"


def test_the_reason_names_both_workloads_and_the_interval() -> None:
    found = judged(measured(deep=1.25), "generation-depth")
    assert "tg4@d256 takes 25." in found.reason
    assert "longer per token than tg4 in the same 6 processes: ratio 0.79" in found.reason
    text = describe(found)
    assert text.startswith("BROKEN: llama-cpp-q8_0-cpu generation-depth: ")
    assert "tolerance 5.0%" in text
    assert "0.25%" in text  # 1 % of runs over four invariants


def test_memory_counts_what_every_workload_without_context_needs() -> None:
    found = judged(measured(), "memory-depth")
    assert found.comparison is not None
    assert found.comparison.ratio == 1  # of 120 MiB, which pp16 needs, not of tg4's 100


def test_noise_hides_the_answer_of_two_processes() -> None:
    found = judged(measured(deep=1.06, processes=2), "generation-depth")
    assert found.verdict == "INCONCLUSIVE"
    assert "more time would tell" in found.reason


def test_without_memory_readings_nothing_is_said_of_memory() -> None:
    record = measured()
    bare = replace(record, runs=tuple(replace(run, memory={}) for run in record.runs))
    found = judged(bare, "memory-depth")
    assert (found.verdict, found.comparison) == ("INCONCLUSIVE", None)
    assert "does not tell" in found.reason
    assert describe(found).startswith("INCONCLUSIVE")


def test_a_workload_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(MeasurementError):
        judged(make_record(make_run(tg4=(4, 4))), "generation-depth")


def test_it_survives_the_trip_between_processes() -> None:
    found = judged(measured(), "prefill-depth")
    assert from_json(to_json(found)) == found
