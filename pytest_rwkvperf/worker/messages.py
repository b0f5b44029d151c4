"""The messages between parent and worker: JSON, one per line.

child → parent   {"hello": {...}}                                   once, first
parent → child   {"id": 1, "do": "open", "with": {...}}             one at a time
child → parent   {"id": 1, "progress": [sentence, fraction]}        any number
child → parent   {"id": 1, "done": ...}  or  {"id": 1, "failed": {"kind": ..., "message": ...}}
"""

from __future__ import annotations

import json
from typing import Any

from pytest_rwkvperf.core.errors import ProtocolError

MAX_LINE_BYTES = 4 << 20
"""Largest message either end accepts. The largest real one, 65 536 logits in base64, is 350 KB."""


def encode(message: dict[str, Any]) -> bytes:
    """A message as one line of strict JSON; raises ValueError for NaN and infinity."""
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Read one line.

    Raises:
        ProtocolError: it is not one JSON object on one line within the size limit.
    """
    if len(line) > MAX_LINE_BYTES:
        raise ProtocolError(f"a message of more than {MAX_LINE_BYTES} bytes; the engine may have written into the pipe")
    try:
        message = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a line that is not JSON: {line[:80]!r}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"a JSON value that is not an object: {line[:80]!r}")
    return message


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
