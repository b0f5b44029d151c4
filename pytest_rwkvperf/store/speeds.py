"""Speeds as tools exchange them: one number each, with or without an interval, and without samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.convention import Convention
from pytest_rwkvperf.core.engine_settings import in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.stats.estimates import Rate
    from pytest_rwkvperf.store.record import Record, RecordedItem


@dataclass(frozen=True, slots=True)
class Speed:
    """One speed; more is better. `series` says what was measured, the same in every run, and `convention` how.

    `low` and `high` are the bounds of the 95 % interval, None where there is none.
    """

    series: str
    convention: Convention
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = "tokens/s"

    @property
    def name(self) -> str:
        """Series and convention in one text, so that no tool continues a series under another convention."""
        return f"{self.series} [{self.convention.id}]"


def series_of(
    backend: str, model: str, quant: str, device: str, threads: str | int, workload: str, settings: str = ""
) -> str:
    """The name of a case's workload without what its convention says; the engine's own settings as in `in_words`."""
    return f"{backend} {model} {quant} {device} t{threads} {settings} {workload}".replace("  ", " ")


def case_series(case: Case) -> str:
    """What the series of all workloads of a case begin with."""
    return series_of(
        case.backend, case.model, case.quant, case.device, case.threads, "", in_words(case.settings)
    ).rstrip()


def of_items(record: Record) -> Iterator[tuple[Case, RecordedItem, Speed]]:
    """Every speed that may count, with what it is of; of A/B the new side's."""
    for recorded, item in record.items():
        case = recorded.case
        if recorded.measured and item.typical_rate and counts(item):
            series = f"{case_series(case)} {item.workload}"
            convention = Convention.of_case(case, recorded.measured.protocol)
            yield case, item, _speed(item.typical_rate, series, convention)


def of_record(record: Record) -> list[Speed]:
    """Every speed that may count."""
    return [speed for _, _, speed in of_items(record)]


def counts(item: RecordedItem) -> bool:
    """Whether an item's speed may be exported: not after a wrong answer, and not if its verdict was voided."""
    return item.verdict != "INVALID" and not item.voided


def _speed(rate: Rate, series: str, convention: Convention) -> Speed:
    return Speed(series, convention, rate.median, None if rate.high is None else rate.low, rate.high)
