"""What a report is: something that makes text of a record, and measures nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.store.record import Record

Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class Style:
    """What a reader may choose about a report."""

    language: Language = "en"


@runtime_checkable
class Report(Protocol):
    """One format. It is given the record alone, so that a stored record gives later what the run would have."""

    @property
    def suffix(self) -> str:
        """Of the files it makes, with the dot."""

    def render(self, record: Record, style: Style) -> Mapping[str, str]:
        """The texts of the report by what tells their files apart.

        That is the empty string for one alone, and an engine's name where there is a file for each.

        Raises:
            ReportError: the record holds nothing that this format could show.
        """


@runtime_checkable
class NeedsMore(Protocol):
    """A report that is made with something that need not be installed."""

    def check(self) -> None:
        """See that it is there.

        Raises:
            OptionError: it is not; the message says how to install it.
        """
