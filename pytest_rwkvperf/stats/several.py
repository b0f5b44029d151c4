"""Several items judged together after the fact: Holm's step-down, which finds no less than equal shares do."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_rwkvperf.stats.verdicts import Verdict

_Item = TypeVar("_Item")


def holm(items: Iterable[_Item], judge: Callable[[_Item, int], Verdict], wanted: Iterable[Verdict]) -> dict[_Item, int]:
    """Items that get a wanted verdict, with the number of items that shared the error rate when they did.

    All share it at first; each one found leaves its share to the rest, until nothing more is found (Holm, Scandinavian
    Journal of Statistics 6, 1979). The chance of any false one stays under the whole rate, whatever the dependence.
    """
    found: dict[_Item, int] = {}
    rest, verdicts = list(items), set(wanted)
    while rest:
        share = len(rest)
        now = [one for one in rest if judge(one, share) in verdicts]
        if not now:
            break
        found |= dict.fromkeys(now, share)
        rest = [one for one in rest if one not in found]
    return found
