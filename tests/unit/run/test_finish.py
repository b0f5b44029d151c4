"""Verdicts are gathered from the tests' reports."""

from __future__ import annotations

import pytest

from pytest_rwkvperf.core.cases import Item, Workload
from pytest_rwkvperf.run.finish import Gatherer
from pytest_rwkvperf.run.fixtures import PROPERTY
from pytest_rwkvperf.verdict.judged import Judgement, to_json
from tests.unit.building import CASE

ITEM = Item(CASE, Workload("prefill", 512))


def reported(judged: Judgement) -> pytest.TestReport:
    """A test's report that a verdict travels with."""
    properties = [(PROPERTY, to_json(judged))]
    return pytest.TestReport("test_it", ("", 0, ""), {}, "passed", None, "call", user_properties=properties)


def gathered(*verdicts: Judgement) -> Judgement:
    """What counts of several verdicts on one item."""
    gatherer = Gatherer()
    for judged in verdicts:
        gatherer.pytest_runtest_logreport(reported(judged))
    return gatherer.judgements()[ITEM]


@pytest.mark.parametrize("order", [(0.03, 0.1, 0.05), (0.1, 0.05, 0.03)])
def test_the_strictest_verdict_on_an_item_counts(order: tuple[float, ...]) -> None:
    verdicts = [Judgement(ITEM, "REGRESSION" if share < 0.05 else "PASS", "", share) for share in order]
    assert gathered(*verdicts).verdict == "REGRESSION"


def test_the_last_verdict_of_a_rerun_test_counts() -> None:
    assert gathered(*(Judgement(ITEM, "PASS", reason, 0.05) for reason in ("first", "second"))).reason == "second"
