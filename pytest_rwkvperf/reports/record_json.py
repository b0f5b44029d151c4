"""The record itself as a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.reports.report import Style
    from pytest_rwkvperf.store.record import Record


@dataclass(frozen=True, slots=True)
class Json:
    """One JSON file with the schema `docs/record.schema.json`."""

    suffix: str = ".json"

    def render(self, record: Record, style: Style) -> Mapping[str, str]:  # noqa: ARG002 - the Protocol's signature
        """The whole record."""
        return {"": records.dumps(record)}


REPORT = Json()
