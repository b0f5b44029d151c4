"""The search itself: pure, over releases in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Answer = Literal["slower", "same", "skip"]
"""Of a release beside the oldest one; `skip`: it does not build, does not run, or noise hides the answer."""


@dataclass(frozen=True, slots=True)
class Found:
    """The first release seen slower, the last seen not to be, and those between them that gave no answer."""

    slow: str
    before: str
    skipped: tuple[str, ...]


def first_slow(releases: Sequence[str], ask: Callable[[str], Answer]) -> Found | None:
    """Halve the releases, oldest first, until two neighbours differ; None when the newest that answers is not slower.

    One that gives no answer is passed over for the one next to it, as `git bisect skip` does.
    """
    rest = list(releases[1:])
    skipped: list[str] = []
    slow = None
    while rest and slow is None:
        newest = rest.pop()
        answer = ask(newest)
        if answer == "same":
            return None
        if answer == "slower":
            slow = newest
        else:
            skipped.append(newest)
    if slow is None:
        return None
    before = releases[0]
    while rest:
        middle = rest[len(rest) // 2]
        answer = ask(middle)
        at = rest.index(middle)
        if answer == "slower":
            slow, rest = middle, rest[:at]
        elif answer == "same":
            before, rest = middle, rest[at + 1 :]
        else:
            skipped.append(middle)
            rest.remove(middle)
    between = releases[releases.index(before) + 1 : releases.index(slow)]
    return Found(slow, before, tuple(one for one in between if one in skipped))
