"""A Hypothesis strategy of damaged baseline files, and a check of how reading one ends."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import strategies as st

from pytest_rwkvperf.core.errors import BaselineError
from pytest_rwkvperf.store import baseline as stored_form
from tests.unit.store.contents import baselines

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = Path("baselines/here.json")

HOSTILE = (
    "/etc/passwd", "../../../../etc/shadow", "file:///etc/passwd", "C:\\Windows\\win.ini", "\x1b[2J", "\u202e", "\0",
    "=cmd|' /C calc'!A0", "<script>alert(1)</script>", "${HOME}", "{{7*7}}", "__import__('os').system('true')",
    "\\ud800", "'; DROP TABLE cases; --", "|", "`", "\n# heading",
)  # fmt: skip
"""Texts with which an attacker may replace a name."""

_FRAGMENTS = st.sampled_from(
    ["-", "null", "9" * 30, "1e400", "-0", '"', "]", "{}", "[]", "\\ud800", "\x00", ",", "NaN", "true", "\ufeff"]
)
_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.sampled_from(HOSTILE),
    st.just([]), st.just({}),
)  # fmt: skip


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401 - JSON
    """Every place in a JSON value, as keys and numbers."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(inner for key, item in items for inner in _places(item, (*place, key)))]


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A baseline's text with one to three kinds of damage."""
    text = stored_form.dumps(draw(baselines()))
    for _ in range(draw(st.integers(1, 3))):
        text = draw(st.sampled_from([_cut, _replaced, _repeated, _whole]))(text, draw)
    return text


def _cut(text: str, draw: st.DrawFn) -> str:
    place = draw(st.integers(0, len(text)))
    removed = draw(st.sampled_from([0, 1, 2, 5, len(text)]))
    return text[:place] + draw(st.text(max_size=3) | _FRAGMENTS) + text[place + removed :]


def _replaced(text: str, draw: st.DrawFn) -> str:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return text
    place = draw(st.sampled_from(_places(raw)))
    value = draw(_VALUES)
    if not place:
        return json.dumps(value)
    inner = raw
    for key in place[:-1]:
        inner = inner[key]
    if isinstance(inner, dict) and draw(st.booleans()):
        inner[draw(st.sampled_from(HOSTILE))] = inner.pop(place[-1])
    else:
        inner[place[-1]] = value
    return json.dumps(raw)


def _repeated(text: str, draw: st.DrawFn) -> str:
    lines = text.splitlines(keepends=True) or [""]
    start = draw(st.integers(0, len(lines) - 1))
    return "".join(lines[: start + 1] + lines[start:])


def _whole(text: str, draw: st.DrawFn) -> str:
    changes: list[Callable[[str], str]] = [str.upper, str.strip, lambda text: text[::-1], lambda text: text * 2]
    return draw(st.sampled_from(changes))(text)


def outcome(text: str) -> str:
    """Describe how reading ended.

    Raises:
        AssertionError: reading gave neither a clear error nor everything that is in the file.
    """
    try:
        baseline = stored_form.loads(text, PATH)
    except BaselineError as error:
        message = str(error)
        assert message.startswith(f"baseline {PATH}"), message
        assert "\x1b" not in message
        reasons = (
            "not valid JSON",
            "no valid schema number",
            "upgrade",
            "does not follow its schema",
            "no usable times",
        )
        return next((f"refused: {reason}" for reason in reasons if reason in message), "refused: other")
    raw = json.loads(text)
    assert _within(raw, msgspec.to_builtins(baseline)), "part of the file was left out"
    assert stored_form.loads(stored_form.dumps(baseline), PATH) == baseline
    return "read whole"


def _within(raw: Any, known: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether everything in `raw` is in `known`, which may have more fields."""
    if isinstance(raw, dict):
        return isinstance(known, dict) and all(key in known and _within(raw[key], known[key]) for key in raw)
    if isinstance(raw, list):
        return len(raw) == len(known) and all(_within(*pair) for pair in zip(raw, known, strict=True))
    return bool(raw == known) or re.fullmatch(r"-?0", str(raw)) is not None
