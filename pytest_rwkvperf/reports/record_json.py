"""The measurement record itself, as JSON with the schema `docs/record.schema.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.reports.report import Report
from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.reports.report import Language
    from pytest_rwkvperf.store.record import Record


class RecordJson(Report):
    """The whole record in one file."""

    def render(self, record: Record, _language: Language, /) -> Mapping[str, str]:
        """As the record is stored."""
        return {"": records.dumps(record)}


REPORT = RecordJson()
