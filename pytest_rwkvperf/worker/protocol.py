"""The uniform protocol, the same for every backend; it runs inside the worker.

Token ids are seeded and made beforehand, also those of generations. The state is cleared or brought to the workload's
depth, and the device is idle, before the clock starts; the last logits are on the host before it stops. llama-bench
(tools/llama-bench/llama-bench.cpp) times the same except that it only waits for the device; web-rwkv always copies the
logits.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.core.engine import Engine

VERSION = 1
"""Part of every stored session: figures of different protocol versions are not compared."""

_SEED = 7


@lru_cache
def token_ids(count: int, vocabulary: int) -> tuple[int, ...]:
    """Seeded token ids, never 0 (the end of text).

    `Random.random` gives the same sequence on every Python (documented under "Notes on Reproducibility").
    """
    source = random.Random(_SEED)
    return tuple(1 + int(source.random() * (vocabulary - 1)) for _ in range(count))


def check_tokens(engine: Engine, tokens: Sequence[int]) -> None:
    """Refuse ids for which the engine would read outside its embedding.

    Raises:
        OptionError: an id is outside the vocabulary.
    """
    for token in tokens:
        if not 0 <= token < engine.vocabulary:
            raise OptionError(
                f"token {token} is outside the vocabulary of {engine.vocabulary}; use 0 to that minus one"
            )


def prefill(engine: Engine, tokens: Sequence[int], chunk: int) -> None:
    """Feed a prompt in chunks.

    Raises:
        OptionError: the prompt is empty or holds an id outside the vocabulary.
    """
    if not tokens:
        raise OptionError("a prefill of no tokens; give at least one")
    check_tokens(engine, tokens)
    for start in range(0, len(tokens), chunk):
        engine.prefill(tokens[start : start + chunk])


@dataclass(frozen=True, slots=True)
class Contexts:
    """The state after each depth: computed once, and restored before every repetition at that depth.

    The state has the same size at any depth. llama-bench does the same (llama.cpp #16944).
    """

    _states: dict[int, Any] = field(default_factory=dict)

    def enter(self, engine: Engine, depth: int, chunk: int) -> None:
        """Bring the engine's state to that depth; 0 is the cleared state."""
        if not depth:
            engine.clear()
            return
        if depth not in self._states:
            engine.clear()
            prefill(engine, token_ids(depth, engine.vocabulary), chunk)
            self._states[depth] = engine.save_state()
        engine.load_state(self._states[depth])


def run(engine: Engine, workload: Workload, chunk: int, contexts: Contexts) -> Sample:
    """Time one repetition of a workload from the state at its depth."""
    contexts.enter(engine, workload.depth, chunk)
    measured = _tokens(engine, workload)
    pieces = [measured[start : start + chunk] for start in range(0, len(measured), chunk)]
    engine.synchronise()
    if workload.kind == "prefill":
        return _time_prefill(engine, pieces)
    return _time_generation(engine, measured)


def _tokens(engine: Engine, workload: Workload) -> Sequence[int]:
    """Those after the context."""
    return token_ids(workload.depth + workload.tokens, engine.vocabulary)[workload.depth :]


def _time_prefill(engine: Engine, pieces: Sequence[Sequence[int]]) -> Sample:
    wall, clock = time.time(), time.perf_counter_ns
    started = clock()
    for piece in pieces:
        engine.prefill(piece)
    engine.logits()
    return Sample(wall, clock() - started, ())


def _time_generation(engine: Engine, tokens: Sequence[int]) -> Sample:
    wall, clock = time.time(), time.perf_counter_ns
    stamps = [0] * len(tokens)
    started = clock()
    for index, token in enumerate(tokens):
        engine.decode(token)
        engine.logits()
        stamps[index] = clock()
    shares = tuple(stop - start for start, stop in zip((started, *stamps), stamps, strict=False))
    return Sample(wall, stamps[-1] - started, shares)


def run_slice(engine: Engine, workload: Workload, chunk: int, contexts: Contexts, start: int, count: int) -> Sample:
    """Time `count` tokens of a generation from its `start`th on; the slices of a generation make `run`'s repetition.

    The first one begins at the workload's depth, each other one where the last ended.
    """
    if start == 0:
        contexts.enter(engine, workload.depth, chunk)
    engine.synchronise()
    return _time_generation(engine, _tokens(engine, workload)[start : start + count])


def joined(slices: Sequence[Sample]) -> Sample:
    """A generation from its slices."""
    shares = tuple(share for part in slices for share in part.token_nanoseconds)
    return Sample(slices[0].started, sum(part.nanoseconds for part in slices), shares)
