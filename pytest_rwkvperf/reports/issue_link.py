"""A link that opens one of the guide's templates on GitHub, filled in.

Source: docs.github.com, "Creating an issue from a URL query". Labels stay out of it: whoever may not label issues there
would get a 404, and the template adds them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING
from urllib.parse import quote_plus, urlencode

from pytest_rwkvperf.reports import guide

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BYTES = 8000
"""GitHub's server answers 414 to an address of more than 8191 bytes."""

_BLANKS = re.compile(r"(?<=\S) {2,}(?=\S)")
_RULE = re.compile(r"-{4,}")


@dataclass(frozen=True, slots=True)
class Draft:
    """An issue's text, and what it leaves out of the whole one; empty where it leaves nothing out."""

    body: str
    without: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """An address, and what its text leaves out."""

    address: str
    without: str


def link(template: guide.Template, title: str, drafts: Sequence[Draft]) -> Link:
    """The link with the first of the texts that fits; if none does, with the first lines of the last one.

    Args:
        template: one that the guide has.
        title: the issue's title.
        drafts: the whole text and shorter ones; the last one says that its last lines are missing.
    """
    for draft in drafts[:-1]:
        address = _address(template, title, draft.body)
        if len(address) <= MAX_BYTES:
            return Link(address, draft.without)
    lines, room = _compact(drafts[-1].body).splitlines(), MAX_BYTES - len(_address(template, title, ""))
    ends = accumulate(len(quote_plus(f"{line}\n")) for line in lines)
    fitting = sum(end <= room for end in ends)
    return Link(_address(template, title, "\n".join(lines[:fitting])), drafts[-1].without)


def _address(template: guide.Template, title: str, body: str) -> str:
    query = urlencode({"template": template.file, "title": title, "body": _compact(body)})
    return f"https://github.com/{guide.REPOSITORY}/issues/new?{query}"


def _compact(body: str) -> str:
    """The same tables without the blanks that align them."""
    lines = (_RULE.sub("---", _BLANKS.sub(" ", line)) if line.startswith("|") else line for line in body.splitlines())
    return "\n".join(lines)
