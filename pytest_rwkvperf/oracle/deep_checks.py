"""A cache of passed deep checks, which run once per engine, file, quant, device, chunk and settings.

An engine is known by what was loaded of it (`Software.identity`): an edited package of the same version is another one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import msgspec

from pytest_rwkvperf.core import folders, locks
from pytest_rwkvperf.core.atomic import write_atomically
from pytest_rwkvperf.core.errors import StorageError
from pytest_rwkvperf.oracle import bounds
from pytest_rwkvperf.oracle.agreement import DEPTH, ODD_CHUNK, Deep
from pytest_rwkvperf.oracle.expected import VERSION

if TYPE_CHECKING:
    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.core.engine import Device


class DeepCheckCache:
    """The cached result of one deep check."""

    def __init__(self, engine: str, content_hash: str, case: Case, device: Device) -> None:
        # The key holds the bounds and the check's constants, so that a change to them repeats every deep check.
        rules = [VERSION, DEPTH, ODD_CHUNK, bounds.digest()]
        opened = [case.quant, asdict(device), case.chunk, *case.settings]
        key = json.dumps([*rules, engine, content_hash, *opened], sort_keys=True)
        self._path = folders.cache() / "parity" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def load(self) -> Deep | None:
        """The result; None when the check has not passed yet or the file is unreadable."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Deep)
        except (OSError, msgspec.MsgspecError):
            return None

    def store(self, result: Deep) -> None:
        """Store the result of a check that passed.

        Raises:
            StorageError: the disk refuses; the next run repeats the check.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, msgspec.json.encode(result))
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error}; {locks.ELSEWHERE}") from error
