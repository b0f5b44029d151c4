from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.reports import headline
from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedInvariant
from tests.unit.building import CASE, make_record, make_run, passed, recorded, report_record
from tests.unit.reports.test_html import judged_record

if TYPE_CHECKING:
    from pytest_rwkvperf.stats.verdicts import Verdict


def said(record: Record) -> tuple[str, str]:
    found = headline.of(record)
    return found.tone, found.sentence.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([("REGRESSION", 0.74)], ("bad", "pp16 is 35 % slower on llama-cpp 1")),
        (
            [("PASS", 1.0), ("REGRESSION", 0.8), ("REGRESSION", 0.5)],
            ("bad", "2 of 3 workloads got slower: pp16 is 2 times slower on llama-cpp 1 (q2)"),
        ),
        ([("INVALID", None), ("PASS", 1.0)], ("bad", "Wrong answers from llama-cpp 1: their speed does not count")),
        ([("INCONCLUSIVE", 0.9)], ("unsure", "Not settled: noise hides whether it got slower")),
        (
            [("INCONCLUSIVE", 0.9), ("PASS", 1.0)],
            ("unsure", "Not settled: noise hides whether 1 of 2 workloads got slower"),
        ),
        (
            [("INCONCLUSIVE", 0.9), ("INCONCLUSIVE", 1.0)],
            ("unsure", "Not settled: noise hides whether any workload got slower"),
        ),
        (
            [("PASS", 0.99), ("PASS", 1.0)],
            ("good", "Nothing got slower: all 2 workloads within the tolerance of 5 %"),
        ),
        ([("PASS", 0.99)], ("good", "Nothing got slower: 1 workload within the tolerance of 5 %")),
        (
            [("PASS", 1.0), ("IMPROVEMENT", 1.2)],
            ("good", "pp16 is 20 % faster on llama-cpp 1 (q1); nothing got slower"),
        ),
        ([("NO-BASELINE", None)], ("plain", "1 speed measured; no baseline to compare with")),
        ([(None, None)], ("plain", "1 speed measured, none judged")),
        ([], ("plain", "Nothing was measured")),
    ],
)
def test_what_a_run_found_is_one_sentence(
    verdicts: list[tuple[Verdict | None, float | None]], expected: tuple[str, str]
) -> None:
    assert said(judged_record(*verdicts)) == expected


def test_an_interruption_is_said_first_but_not_before_a_regression() -> None:
    half = judged_record(("PASS", 1.0), (None, None))
    expected = "Interrupted after 1 of 2 workloads. Nothing got slower: 1 workload within the tolerance of 5 %"
    assert said(replace(half, exit_status=2)) == ("unsure", expected)
    assert said(replace(judged_record(("REGRESSION", 0.8)), exit_status=2))[0] == "bad"


def test_a_case_that_failed_is_named() -> None:
    lost = RecordedCase(replace(CASE, backend="rwkv"), None, None, (), failure="died")
    (fine,) = judged_record(("PASS", 1.0)).cases
    assert said(report_record(fine, lost)) == ("bad", "rwkv could not be measured")


def test_versions_of_both_sides_are_named_where_they_differ() -> None:
    new = replace(make_record(make_run(pp16=[10**7])), versions={"llama-cpp-python": "0.3.36", "llama.cpp": "b2"})
    old = replace(new, versions={"llama-cpp-python": "0.3.35", "llama.cpp": "b1"})
    items = [replace(item, verdict="IMPROVEMENT") for item in passed(new)]
    faster = report_record(recorded(new, *items, old=old))
    assert said(faster) == ("good", "pp16 is 2 times faster on llama-cpp 0.3.36 than on 0.3.35")


def test_invariants_have_a_say() -> None:
    (case,) = judged_record((None, None)).cases
    held = RecordedInvariant("batching", "a claim", "pp16", "tg4", "time", "HOLDS", "", fails=False, tolerance=0.05)
    broken = replace(held, verdict="BROKEN", fails=True)
    unsettled = replace(held, verdict="INCONCLUSIVE")

    def of(*invariants: RecordedInvariant) -> tuple[str, str]:
        return said(report_record(replace(case, invariants=invariants)))

    assert of(held, held) == ("good", "All 2 invariants hold")
    assert of(held, unsettled) == ("unsure", "Not settled: whether 1 of 2 invariants hold")
    assert of(held, broken, broken) == ("bad", "The invariant batching does not hold on llama-cpp 1, nor 1 more")


def test_counts_are_of_each_verdict() -> None:
    found = headline.of(judged_record(("PASS", 1.0), ("REGRESSION", 0.8), ("PASS", 1.0), (None, None)))
    assert found.counts == (
        ("REGRESSION", "1 slower beyond the tolerance"),
        ("PASS", "2 within the tolerance"),
        ("", "1 without a verdict"),
    )
