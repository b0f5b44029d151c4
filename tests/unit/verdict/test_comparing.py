"""Two stored files compared."""

from __future__ import annotations

from pytest_rwkvperf.stats.verdicts import ALPHA
from pytest_rwkvperf.store.baseline import Baseline
from pytest_rwkvperf.verdict.accept import stored_cases
from pytest_rwkvperf.verdict.comparing import Pair, Side, compare
from tests.unit.building import CASE, make_record, make_run, report_record


def test_undecided_items_share_the_error_rate() -> None:
    record = make_record(*(make_run(pp512=[10**7, 10**7 + index], tg128=[10**8 + index]) for index in range(3)))
    (stored,) = stored_cases([record], {CASE.key: {"pp512", "tg128"}}, "now")
    side = Side(Baseline(report_record().fingerprint).with_case(stored, replacing=False))
    judgements = compare(Pair(side, side), 0.01)
    assert [(each.verdict, each.comparison and each.comparison.alpha) for each in judgements] == [
        ("INCONCLUSIVE", ALPHA / 2)
    ] * 2
