"""GitHub-flavoured markdown: tables, and escapes for names, which come from files and drivers."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Starts of emphasis, links, cells, tags, entities, code and formulas. An underscore inside a word is none.
_SPECIAL = re.compile(r"([\\`*\[\]<>|~&$]|(?<![^\W_])_|_(?![^\W_]))")
# GitHub turns @name and #1 into references after rendering, so a backslash does not help.
_REFERENCE = re.compile(r"(?<!\w)([@#])(?=\w)")
_WORD_JOINER = "\u2060"


def clean(text: str) -> str:
    """One line of text without control characters, invisible ones and those that change its direction."""
    visible = (" " if char in "\t\r\n\v\f\x85\u2028\u2029" else char for char in text)
    return "".join(char for char in visible if unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn"}).strip()


def escape(text: str) -> str:
    """Text that renders as itself in a paragraph or a table's cell, on one line. Ordinary names stay unchanged."""
    return _REFERENCE.sub(rf"\1{_WORD_JOINER}", _SPECIAL.sub(r"\\\1", clean(text)))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A table of cells that are already escaped; columns whose index is in `right` are aligned to the right."""
    widths = [max(3, *(len(row[index]) for row in (header, *rows))) for index in range(len(header))]
    rule = ["-" * (width - 1) + (":" if index in right else "-") for index, width in enumerate(widths)]

    def line(cells: Sequence[str]) -> str:
        placed = (
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(placed)} |"

    return "\n".join([line(header), line(rule), *map(line, rows)]) + "\n"
