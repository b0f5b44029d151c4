"""Several items judged together: Holm's step-down procedure, at least as powerful as equal shares of the error rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_rwkvperf.stats.verdicts import Verdict

_Item = TypeVar("_Item")


def holm(items: Iterable[_Item], judge: Callable[[_Item, int], Verdict], wanted: Iterable[Verdict]) -> dict[_Item, int]:
    """Items that get a wanted verdict, with the number of items that shared the error rate when they did.

    All share it at first; each item with such a verdict leaves its share to the rest, until no more get one (Holm,
    Scandinavian Journal of Statistics 6, 1979). The probability of any false one stays under the whole rate, however
    the items depend on each other.
    """
    decided: dict[_Item, int] = {}
    rest, verdicts = list(items), set(wanted)
    while now := [item for item in rest if judge(item, len(rest)) in verdicts]:
        decided |= dict.fromkeys(now, len(rest))
        rest = [item for item in rest if item not in decided]
    return decided
