"""JSON files that are kept: written for diffs, read without trusting them."""

from __future__ import annotations

import errno
import json
import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.text import printable_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_BYTES = 1 << 28
"""The largest file that is read. A run of 12 cases with pp512 and tg128 leaves a record of about a megabyte, and ten
such runs a baseline."""

# JSON strings hold no raw line break, so a string that looks like a list does not match.
_NUMBERS = re.compile(r"\[\n\s+(-?[\d.e+-]+(?:,\s+-?[\d.e+-]+)*)\s+\]")

_NO_NUMBER = re.compile(r'(?<=": )-?(?:nan|inf)\b')


def dumps(value: object, *, sort_keys: bool) -> str:
    """JSON with two-space indent, each list of numbers on one line.

    Raises:
        ValueError: NaN or infinity.
    """
    text = json.dumps(value, indent=2, sort_keys=sort_keys, allow_nan=False, ensure_ascii=False)
    return _NUMBERS.sub(lambda match: "[" + re.sub(r"\s+", " ", match[1]) + "]", text) + "\n"


def read_text(path: Path) -> str:
    """A file's text, of at most MAX_BYTES: a link in a folder from elsewhere may lead to an endless stream.

    Raises:
        OSError: it cannot be read, or is larger.
        UnicodeDecodeError: it is not UTF-8.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it has more than the {MAX_BYTES:,} bytes that any such file has")
    return data.decode()


def loads(text: str, *, clean: bool = False) -> Any:  # noqa: ANN401 - JSON
    """Parse JSON without NaN, infinity, numbers beyond floats, half surrogate pairs, repeated keys and deep nesting.

    With `clean`, control characters in its text are escaped: for content that is shown and not written back.

    Raises:
        ValueError: it is not such JSON.
    """
    try:
        raw = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_without_repeats,
        )
        json.dumps(raw, ensure_ascii=False).encode()  # half a surrogate pair is valid JSON, but cannot be encoded
        raw = printable_json(raw) if clean else raw
    except RecursionError as error:
        raise ValueError(str(error)) from error
    return raw


def with_zeros(line: str) -> str:
    """A line of JSON that C's printf wrote, with 0 where it wrote `nan` or `inf`: a speed of nothing in no time."""
    return _NO_NUMBER.sub("0", line)


def stray_key(raw: object, known: object) -> str | None:
    """A key, at any depth, that is in `raw` and not in `known`; None if there is none."""
    pairs: Iterable[tuple[object, object]] = ()
    if isinstance(raw, dict) and isinstance(known, dict):
        if unknown := raw.keys() - known.keys():
            return str(min(unknown))
        pairs = ((value, known[key]) for key, value in raw.items())
    elif isinstance(raw, list) and isinstance(known, (list, tuple)):
        pairs = zip(raw, known, strict=False)
    return next((key for pair in pairs if (key := stray_key(*pair)) is not None), None)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members. A file merged with both sides' lines may have a key twice, and Python keeps the last one."""
    members = dict(pairs)
    if len(members) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {counts.most_common(1)[0][0]!r} stands twice in one object")
    return members


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _whole(text: str) -> int:
    """An integer within the range of floats: Python reads larger ones, and cannot divide them."""
    _finite(text)
    return int(text)


def _finite(text: str) -> float:
    """`1e999` is JSON, and Python reads it as infinity."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value
