"""Cases that differ only in their threads are distinguishable in every report for people."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.fleet import fleet_report
from pytest_rwkvperf.fleet.merge import Merged
from pytest_rwkvperf.reports import formats, github, terminal_tables
from tests.unit.building import CASE, make_record, make_run, passed, recorded, report_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.store.record import Record, RecordedCase


def case_with(threads: int) -> RecordedCase:
    measured = make_record(make_run(pp16=[10**7] * 3), case=replace(CASE, threads=threads))
    (item,) = passed(measured)
    return recorded(measured, replace(item, verdict="REGRESSION", fails=True))


BOTH = report_record(case_with(1), case_with(2))
ALONE = report_record(case_with(2))


def of_format(record: Record, form: str) -> str:
    return "\n".join(formats.load(form).render(record, "en").values())


def of_fleet(record: Record, _form: str) -> str:
    return fleet_report.as_csv(Merged((record,), ())) + fleet_report.as_markdown(Merged((record,), ()))


def of_annotations(record: Record, _form: str) -> str:
    return "\n".join(github.errors_of(record))


def of_terminal(record: Record, _form: str) -> str:
    return terminal_tables.verdicts(record.disambiguated().items(), 120, colour=False)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (of_format, "markdown"),
        (of_format, "html"),
        (of_format, "issue"),
        (of_fleet, ""),
        (of_annotations, ""),
        (of_terminal, ""),
    ],
)
def test_threads_are_named_if_they_tell_cases_apart(text: Callable[[Record, str], str], form: str) -> None:
    for wanted in ("cpu-t1", "cpu-t2"):
        assert wanted in text(BOTH, form)
        assert wanted not in text(ALONE, form)


def test_issue_names_the_threads_of_every_case() -> None:
    assert "Settings: 1, 2 threads" in of_format(BOTH, "issue")
    assert "Settings: 2 threads" in of_format(ALONE, "issue")


def test_json_keeps_the_device() -> None:
    assert "cpu-t" not in of_format(BOTH, "json")
