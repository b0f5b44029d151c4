"""Percent slower: one meaning wherever it is printed or compared with a limit.

A slowdown is a share of the time, as the tolerance is: 25 % slower takes 1.25 times as long, and has 0.8 of the speed.
What is 25 % faster has 1.25 times the speed: a is 25 % faster than b where b is 25 % slower than a.
"""

from __future__ import annotations


def slowdown(ratio: float) -> float:
    """How much slower something is that has this ratio of new to old speed; negative where it is faster."""
    return 1 / ratio - 1 if ratio <= 1 else 1 - ratio


def percent_slower(ratio: float) -> str:
    """The same in words: `25.0% slower`, `25.0% faster`."""
    change = slowdown(ratio)
    return f"{abs(change):.1%} {'faster' if change < 0 else 'slower'}"
