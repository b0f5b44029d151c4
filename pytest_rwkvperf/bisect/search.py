"""Binary search for the first slow release. Measuring is the caller's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Answer = Literal["slower", "same", "skip"]
"""A release compared with the oldest one; `skip`: it does not build, does not run, or noise hides the answer."""


@dataclass(frozen=True, slots=True)
class FirstSlow:
    """The first release seen slower, the last one seen not slower, and those between them that gave no answer."""

    slow: str
    before: str
    skipped: tuple[str, ...]


def first_slow(releases: Sequence[str], ask: Callable[[str], Answer]) -> FirstSlow | None:
    """Bisect the releases, oldest first, until two neighbours differ.

    A release without an answer is skipped for its neighbour, as `git bisect skip` does. None if the newest release that
    gives an answer is not slower, or none gives one.
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
        at = len(rest) // 2
        middle = rest[at]
        answer = ask(middle)
        if answer == "slower":
            slow, rest = middle, rest[:at]
        elif answer == "same":
            before, rest = middle, rest[at + 1 :]
        else:
            skipped.append(middle)
            del rest[at]
    between = releases[releases.index(before) + 1 : releases.index(slow)]
    return FirstSlow(slow, before, tuple(release for release in between if release in skipped))
