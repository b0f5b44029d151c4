"""The protocol of report formats. A report makes text from a measurement record and measures nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_rwkvperf.store.record import Record

Language = Literal["en", "zh"]


class Report(Protocol):
    """One format. Its only input is the record, so a stored record later gives the same report as the run itself."""

    def check(self) -> None:
        """Check that the libraries the format needs are installed; most formats need none.

        Raises:
            OptionError: one is missing; the message says how to install it.
        """
        return

    def render(self, record: Record, language: Language, /) -> Mapping[str, str]:
        """Texts of the report by part: "" for a report in one file, an engine's name where each engine has a file.

        `language` matters only to formats with translated text.

        Raises:
            ReportError: the record holds nothing that this format can show.
        """

    def advice(self, _record: Record, _language: Language, _file_of: Callable[[str], str], /) -> Sequence[str]:
        """What to do with the texts, in lines for the terminal; most formats need none.

        The function returns the file of a part, `-` where the text was printed.
        """
        return ()

    def links(self, _record: Record, _language: Language, /) -> Sequence[str]:
        """Lines with addresses that hold the texts. They may have thousands of characters, so a run prints none."""
        return ()
