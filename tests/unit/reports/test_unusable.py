"""An interval so wide that its speed is no measurement is called unusable wherever it stands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_rwkvperf.measure import measurement
from pytest_rwkvperf.reports import figures
from pytest_rwkvperf.reports.issue import REPORT
from pytest_rwkvperf.stats.estimates import Rate
from tests.unit.building import make_record, make_run, recorded, report_record, with_verdict

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


def test_the_line_of_a_case_says_it() -> None:
    assert " (unusable); 3 processes" in measurement.summary(make_record(*WILD), "a")
    assert "unusable" not in measurement.summary(make_record(*CALM), "a")
