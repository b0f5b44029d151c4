"""Pieces of GitHub-flavoured markdown. Names of models, devices and versions come from files and drivers."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# What begins an emphasis, a link, a cell, a tag, an entity, code or a formula. An underscore inside a word does not.
_SPECIAL = re.compile(r"([\\`*\[\]<>|~&$]|(?<![^\W_])_|_(?![^\W_]))")
# GitHub makes @name and #1 into notes to people and issues after rendering, where no backslash helps.
_REFERENCE = re.compile(r"(?<!\w)([@#])(?=\w)")
_WORD_JOINER = "\u2060"


def clean(text: str) -> str:
    """One line without control characters, invisible ones and those that turn the direction of text."""
    visible = (" " if one in "\t\r\n\v\f\x85\u2028\u2029" else one for one in text)
    return "".join(one for one in visible if unicodedata.category(one) not in {"Cc", "Cf", "Cs", "Co", "Cn"}).strip()


def escape(text: str) -> str:
    """Text that shows as itself, on one line, inside a paragraph or a table's cell; usual names stay as they are."""
    return _REFERENCE.sub(rf"\1{_WORD_JOINER}", _SPECIAL.sub(r"\\\1", clean(text)))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A table of cells that are escaped already; columns whose index is in `right` stand to the right."""
    widths = [max(3, *(len(row[index]) for row in (header, *rows))) for index in range(len(header))]
    rule = ["-" * (width - 1) + (":" if index in right else "-") for index, width in enumerate(widths)]

    def line(cells: Sequence[str]) -> str:
        placed = (
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(placed)} |"

    return "\n".join([line(header), line(rule), *map(line, rows)]) + "\n"
