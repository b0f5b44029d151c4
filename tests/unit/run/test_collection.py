"""Verdicts are gathered from the tests' reports."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pytest_rwkvperf.core.cases import Item, Workload
from pytest_rwkvperf.run import collection
from pytest_rwkvperf.run.fixtures import PROPERTY
from pytest_rwkvperf.verdict.judged import Judgement, to_json
from tests.unit.building import CASE

ITEM = Item(CASE, Workload("prefill", 512))


def reported(told: Judgement) -> pytest.TestReport:
    """A test's report that a verdict travels with."""
    properties = [(PROPERTY, to_json(told))]
    return pytest.TestReport("test_it", ("", 0, ""), {}, "passed", None, "call", user_properties=properties)


@pytest.mark.parametrize("order", [(0.03, 0.1, 0.05), (0.1, 0.05, 0.03)])
def test_of_several_verdicts_on_one_item_the_strictest_counts(order: tuple[float, ...]) -> None:
    session = SimpleNamespace(judgements={})
    gatherer = collection.Gatherer(session)  # type: ignore[arg-type]
    for tolerance in order:
        told = Judgement(ITEM, "REGRESSION" if tolerance < 0.05 else "PASS", "", tolerance)
        gatherer.pytest_runtest_logreport(reported(told))
    gatherer.pytest_sessionfinish()
    assert session.judgements[ITEM].verdict == "REGRESSION"


def test_of_a_test_that_was_run_again_the_later_verdict_counts() -> None:
    session = SimpleNamespace(judgements={})
    gatherer = collection.Gatherer(session)  # type: ignore[arg-type]
    for reason in ("first", "second"):
        gatherer.pytest_runtest_logreport(reported(Judgement(ITEM, "PASS", reason, 0.05)))
    gatherer.pytest_sessionfinish()
    assert session.judgements[ITEM].reason == "second"
