"""The oracle's logits for a case, computed once per model content and cached as `.npy` files."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from pytest_rwkvperf.core import folders, locks
from pytest_rwkvperf.core.atomic import remove_leftovers, replacing
from pytest_rwkvperf.core.errors import RefusedError
from pytest_rwkvperf.core.samples import CHECK_SEED, KNOWN_SEED
from pytest_rwkvperf.oracle.agreement import BATCH_LENGTHS, DEPTH, PROMPT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.models.model import ModelFile

VERSION = 3
"""Raise it when the oracle's arithmetic or the prompt changes: cached logits of another version are not used."""

MOST_WORK = 4e12
"""Parameters times tokens that the oracle computes for timed repetitions, once per model file: 13.3b's tg128, 7.2b's
pp512 and 2.9b's 1300 tokens, which take minutes. Answers beyond are compared with the engine's own."""


class Solver(Protocol):
    """Runs the oracle in a worker, because that may unpickle a `.pth`."""

    def solve(self, file: ModelFile, emulation: str, seed: int, targets: Mapping[int, Path]) -> None:
        """Write the logits after each number of tokens of the seed's prompt to its target (.npy, float32)."""


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
    return [*_solved(file, emulation, CHECK_SEED, counts, solver).values()]


def batch_files(file: ModelFile, emulation: str, solver: Solver) -> list[Path]:
    """Files with the oracle's logits for the check of batches: after each of BATCH_LENGTHS of the fixed prompt.

    Raises:
        ModelError, BackendError, WorkerError, RefusedError: as `logits_files`.
    """
    return [*_solved(file, emulation, CHECK_SEED, BATCH_LENGTHS, solver).values()]


def known_answers(file: ModelFile, emulation: str, workloads: Iterable[Workload], solver: Solver) -> dict[str, Path]:
    """Files with the oracle's logits after each workload's known prompt, without those that need MOST_WORK or more.

    Raises:
        ModelError, BackendError, WorkerError: as `logits_files`.
    """
    lengths = {str(workload): workload.depth + workload.tokens for workload in workloads}
    counts = {count for count in lengths.values() if file.shape.parameters * count < MOST_WORK}
    answers = _solved(file, emulation, KNOWN_SEED, counts, solver)
    return {name: answers[count] for name, count in lengths.items() if count in counts}


def path_of(content_hash: str, emulation: str, seed: int, count: int) -> Path:
    """Where the logits after the first `count` tokens of a seed's prompt are cached."""
    key = f"{VERSION} {content_hash} {emulation} {seed} {count}"
    return folders.cache() / "oracle" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"


def _solved(file: ModelFile, emulation: str, seed: int, counts: Iterable[int], solver: Solver) -> dict[int, Path]:
    """Files with the oracle's logits by number of tokens; those not cached yet are computed in one pass."""
    targets = {count: path_of(file.content_hash, emulation, seed, count) for count in counts}
    prompt = folders.in_cache("oracle") / path_of(file.content_hash, emulation, seed, 0).name
    with locks.hold(folders.lock_for(prompt)):
        # Absent, or of another user.
        missing = {count: target for count, target in targets.items() if not os.access(target, os.R_OK)}
        if missing:
            _solve(file, emulation, seed, missing, solver)
    return targets


def _solve(file: ModelFile, emulation: str, seed: int, targets: Mapping[int, Path], solver: Solver) -> None:
    try:
        for target in targets.values():
            remove_leftovers(target)
        with ExitStack() as stack:
            temporary = {count: stack.enter_context(replacing(target)) for count, target in targets.items()}
            solver.solve(file, emulation, seed, temporary)
    except OSError as error:
        folder = folders.cache() / "oracle"
        raise RefusedError(f"{folder} cannot be written: {error}; {locks.ELSEWHERE}") from error
