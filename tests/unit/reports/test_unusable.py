"""An interval so wide that its speed is no measurement is called unusable wherever it stands."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pytest_rwkvperf.core.cases import Item, Workload
from pytest_rwkvperf.history import page
from pytest_rwkvperf.history.database import Point, Series
from pytest_rwkvperf.history.trends import Trend
from pytest_rwkvperf.measure import measurement, plan
from pytest_rwkvperf.reports import exchange, figures, html
from pytest_rwkvperf.reports.issue import REPORT
from pytest_rwkvperf.stats.estimates import Rate
from pytest_rwkvperf.verdict import judgement, reasons
from tests.unit.building import CASE, make_record, make_run, recorded, report_record, with_verdict

UNUSABLE = Rate(100.0, 20.0, 970.0, 3, 9)
"""± 475 %."""

USABLE = Rate(100.0, 60.0, 155.0, 3, 9)
"""± 47.5 %: wide, and still a measurement."""

WILD, CALM = ([make_run(pp16=[10**7 * factor] * 3) for factor in factors] for factors in ((1, 9, 40), (1, 1, 1)))


@pytest.mark.parametrize(("rate", "cell"), [(UNUSABLE, "unusable"), (USABLE, "47.5%"), (Rate(9, 0, None, 1, 3), "")])
def test_tables_show_the_word_instead_of_the_percentage(rate: Rate, cell: str) -> None:
    case = recorded(make_record(*CALM))
    assert figures.item_cells(case, with_verdict("NO-BASELINE", rate=rate))["± 95 %"] == cell


@pytest.mark.parametrize(("rate", "cell"), [(UNUSABLE, "20.00 - 970.00 (unusable)"), (USABLE, "60.00 - 155.00 |")])
def test_the_issue_says_it_beside_the_bounds(rate: Rate, cell: str) -> None:
    record = make_record(make_run(pp16=[10**7] * 3), case=replace(make_record(*CALM).case, backend="rwkv"))
    item = replace(with_verdict("NO-BASELINE", workload="pp16"), rate=rate)
    text = "".join(REPORT.render(report_record(recorded(record, item)), "en").values())
    assert cell in text


@pytest.mark.parametrize(("rate", "said"), [(UNUSABLE, "20.00 to 970.00 (unusable) ("), (USABLE, "60.00 to 155.00 (")])
def test_a_failing_test_says_it(rate: Rate, said: str) -> None:
    judged = replace(judgement.invalid(Item(CASE, Workload.parse("pp16")), 0.05, ""), verdict="REGRESSION", new=rate)
    assert f"95 % interval {said}3 processes" in reasons.describe(judged)


@pytest.mark.parametrize(("rate", "said"), [(UNUSABLE, "20.00 to 970.0 (unusable);"), (USABLE, "60.00 to 155.0;")])
def test_a_workloads_figures_on_the_page_say_it(rate: Rate, said: str) -> None:
    item = with_verdict("PASS", workload="pp16", rate=rate)
    text = html.REPORT.render(report_record(recorded(make_record(*CALM), item)), "en")[""]
    assert f"95 % interval {said}" in text


def test_a_chart_of_many_commits_says_it() -> None:
    item = with_verdict("NO-BASELINE", workload="pp16", rate=UNUSABLE)
    (entry,) = json.loads(exchange.GITHUB_BENCHMARK.render(report_record(recorded(make_record(*CALM), item)), "en")[""])
    assert entry["range"] == "± 475 (unusable)"


def test_a_trends_table_says_it() -> None:
    trend = Trend(
        Series("machine", "case", "pp16", "a" * 64, "CPU", 1),
        (Point("1" * 32, "2026-11-23", "", 100.0, 20.0, 970.0, {}),),
        (),
    )
    assert ">970.0 (unusable)</td>" in page.render([trend], "history.db")


def test_progress_says_it() -> None:
    told = [plan._precision_so_far({Workload.parse("pp16"): width}) for width in (4.75, 0.4)]
    assert told == [" (intervals unusable)", " (intervals up to ± 40.0%)"]


def test_the_line_of_a_case_says_it() -> None:
    assert "t/s, interval unusable; 3 processes" in measurement.summary(make_record(*WILD), "a")
    assert "unusable" not in measurement.summary(make_record(*CALM), "a")
