"""The oracle's logits for a case, computed once per model content and cached as `.npy` files."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Protocol

from pytest_rwkvperf.core import folders, locks
from pytest_rwkvperf.core.atomic import remove_leftovers, replacing
from pytest_rwkvperf.core.errors import RefusedError
from pytest_rwkvperf.oracle.agreement import DEPTH, PROMPT

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.models.model import ModelFile

VERSION = 2
"""Raise it when the oracle's arithmetic or the prompt changes: cached logits of another version are not used."""


class Solver(Protocol):
    """Runs the oracle in a worker, because that may unpickle a `.pth`."""

    def solve(self, file: ModelFile, emulation: str, count: int, target: Path) -> None:
        """Write the logits after the fixed prompt of `count` tokens to `target` (.npy, float32)."""


def logits_files(file: ModelFile, emulation: str, *, deep: bool, solver: Solver) -> list[Path]:
    """Files with the oracle's logits: after the short check's tokens, and if `deep` after the deep check's.

    Args:
        file: what the engine reads.
        emulation: how the engine changes the weights while loading (`web-rwkv:int8@31`), empty when it does not.
        deep: whether the deep check runs too.
        solver: runs the oracle.

    Raises:
        ModelError: the file cannot be read.
        BackendError: the emulation is unknown.
        WorkerError: the oracle's process failed.
        RefusedError: the cache cannot be written.
    """
    counts = (PROMPT, DEPTH) if deep else (PROMPT,)
    return [_solved(file, emulation, count, solver) for count in counts]


def _solved(file: ModelFile, emulation: str, count: int, solver: Solver) -> Path:
    folder = folders.in_cache("oracle")
    name = hashlib.sha256(f"{VERSION} {file.content_hash} {emulation} {count}".encode()).hexdigest()[:32]
    target = folder / f"{name}.npy"
    with locks.hold(folders.lock_for(target)):
        if not os.access(target, os.R_OK):  # absent, or of another user
            try:
                remove_leftovers(target)
                with replacing(target) as temporary:
                    solver.solve(file, emulation, count, temporary)
            except OSError as error:
                raise RefusedError(f"{target} cannot be written: {error}; {locks.ELSEWHERE}") from error
    return target
