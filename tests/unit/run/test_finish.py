"""Verdicts are gathered from the tests' reports."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pytest_rwkvperf.core.cases import Item, Workload
from pytest_rwkvperf.history import address
from pytest_rwkvperf.run import finish, saving
from pytest_rwkvperf.run.finish import Gatherer
from pytest_rwkvperf.run.fixtures import PROPERTY, VERDICTS
from pytest_rwkvperf.verdict.judged import Judgement, to_json
from tests.unit.building import CASE

if TYPE_CHECKING:
    from pytest_rwkvperf.run.session import Session
    from pytest_rwkvperf.store.record import Record

ITEM = Item(CASE, Workload("prefill", 512))


def reported(judged: Judgement) -> pytest.TestReport:
    """A test's report that a verdict travels with."""
    report = pytest.TestReport("test_it", ("", 0, ""), {}, "passed", None, "call")
    item = SimpleNamespace(stash={VERDICTS: {PROPERTY: [to_json(judged)]}})
    finish.attach(cast("pytest.Item", item), report)
    assert item.stash == {}, "of a test that is run again the new ones count"
    return pytest.TestReport._from_json(report._to_json())  # xdist does this


def gathered(*verdicts: Judgement) -> Judgement:
    """What counts of several verdicts on one item."""
    gatherer = Gatherer(lambda _nodeid, _verdict: "")
    for judged in verdicts:
        gatherer.pytest_runtest_logreport(reported(judged))
    return gatherer.judgements()[ITEM]


@pytest.mark.parametrize("order", [(0.03, 0.1, 0.05), (0.1, 0.05, 0.03)])
def test_the_strictest_verdict_on_an_item_counts(order: tuple[float, ...]) -> None:
    verdicts = [Judgement(ITEM, "REGRESSION" if share < 0.05 else "PASS", "", share) for share in order]
    assert gathered(*verdicts).verdict == "REGRESSION"


def test_the_last_verdict_of_a_rerun_test_counts() -> None:
    assert gathered(*(Judgement(ITEM, "PASS", reason, 0.05) for reason in ("first", "second"))).reason == "second"


def test_a_fault_while_saving_or_sending_costs_neither_tables_nor_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(saving, "save", fault)
    monkeypatch.setattr(address, "parse", fault)
    settings = SimpleNamespace(save="append", aa=False, reports=(), report_language="en", history="h.db")
    session = cast("Session", SimpleNamespace(settings=settings, folder=None, observed=False))
    run = cast("pytest.Session", SimpleNamespace(exitstatus=0, config=SimpleNamespace(rootpath=None)))
    saved = finish._saved(run, session, {ITEM: Judgement(ITEM, "PASS", "", 0.05)})
    assert saved.troubles[0].startswith("not saved: ZeroDivisionError: division by zero; please report this")
    record = cast("Record", SimpleNamespace(cases=[SimpleNamespace(measured=True)]))
    published = finish._published(run, session, record, saved)
    assert published.troubles[0] == saved.troubles[0]
    assert published.troubles[1].startswith("not stored in the history: ZeroDivisionError")
    assert run.exitstatus == pytest.ExitCode.TESTS_FAILED
