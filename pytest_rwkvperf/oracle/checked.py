"""Remembering that a deep check has passed: once per engine version, file, quant, device and chunk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import msgspec

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.atomic import write_atomically
from pytest_rwkvperf.oracle import bounds
from pytest_rwkvperf.oracle.agreement import DEPTH, ODD_CHUNK, Deep
from pytest_rwkvperf.oracle.expected import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.core.engine import Device


class DeepCheckCache:
    """The place of one deep check's result in the user's cache."""

    def __init__(self, versions: Mapping[str, str], content_hash: str, quant: str, device: Device, chunk: int) -> None:
        # With the bounds and the check in the key, whoever tightens them has every deep check made again.
        rules = [VERSION, DEPTH, ODD_CHUNK, bounds.digest()]
        key = json.dumps([*rules, dict(versions), content_hash, quant, asdict(device), chunk], sort_keys=True)
        self._path = folders.cache() / "parity" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def load(self) -> Deep | None:
        """What the check found, if it has run; an unreadable note counts as none."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Deep)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def store(self, found: Deep) -> None:
        """Note a check that passed."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, msgspec.json.encode(found))
