"""Figures and counts in words, for the sentences of pages and summaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.stats.slowdown import percent_slower, slowdown

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.stats.estimates import Rate

SPACE = "\u00a0"
"""Between a number and its unit: a line does not break there."""

_ENDLESS = 99.0
"""A ratio beyond 100 is a bound that says nothing."""


def share(value: float) -> str:
    """A share in percent with three digits at most: `0.25 %`, `5 %`, `12.5 %`."""
    return f"{100 * value:.3g}{SPACE}%"


def percent(value: float) -> str:
    """A share in percent with one decimal, none for whole ones: `8.4 %`, `25 %`."""
    return f"{100 * value:.1f}".removesuffix(".0") + f"{SPACE}%"


def change(ratio: float) -> str:
    """What a ratio of new to old speed means: `35 % slower`, `2.4 times slower`, `same speed`."""
    amount, word = abs(slowdown(ratio)), percent_slower(ratio).rpartition(" ")[2]
    if amount >= 1:
        return f"{amount + 1:.2g}{SPACE}times{SPACE}{word}" if amount < _ENDLESS else f"many times {word}"
    digits = 0 if amount >= 0.1 else 1  # noqa: PLR2004 - 10 %
    number = f"{100 * amount:.{digits}f}".removesuffix(".0")
    return "same speed" if number == "0" else f"{number}{SPACE}%{SPACE}{word}"


def changes(low: float, high: float | None) -> str:
    """The bounds of a ratio in the same words: `30 % to 41 % slower`, `2 % slower to 1 % faster`."""
    if high is None:
        return "no bounds" if low <= 0 else f"{change(low)} at most" if low < 1 else f"{change(low)} at least"
    if low <= 0:
        return f"{change(high)} at least" if high < 1 else f"{change(high)} at most"
    first, last = change(low), change(high)
    if first == last:
        return first
    word = last.rpartition(SPACE)[2]
    if not first.endswith(word):
        return f"{first} to {last}"
    if high < 1:  # the lower bound is the larger slowdown
        first, last = last, first
    return f"{first.removesuffix(f'{SPACE}{word}')} to {last}"


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 workload`, `12 workloads`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}".replace(",", SPACE)


def names(parts: list[str], most: int = 3) -> str:
    """`a`, `a and b`, `a, b and 4 more`."""
    shown = parts[:most] if len(parts) <= most else [*parts[: most - 1], f"{len(parts) - most + 1} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def plus_minus(rate: Rate) -> str:
    """A speed's interval beside it; in words where there is none, or one that says nothing."""
    if rate.half_width is None:
        return "one process"
    return "interval unusable" if rate.unusable else f"±{SPACE}{100 * rate.half_width:.2g}{SPACE}%"


def span(low: float, high: float, form: Callable[[float], str]) -> str:
    """A range in words, or one figure where both ends look alike."""
    first, last = form(low), form(high)
    return first if first == last else f"{first} to {last}"


def plain_number(value: float) -> str:
    """A round value of an axis: `0`, `0.25`, `5 000`."""
    return f"{value:,.10g}".replace(",", SPACE)


def tick_change(ratio: float) -> str:
    """A round change on an axis whose ends say `slower` and `faster`: `20 %`, `2 times`, or `same`."""
    amount = abs(slowdown(ratio))
    if amount < 1e-9:  # noqa: PLR2004 - rounding
        return "same"
    return f"{amount + 1:.3g}{SPACE}times" if amount > 1 - 1e-9 else share(amount)
