"""The one protocol, the same for every backend; it runs inside the worker.

Seeded token ids made beforehand, forced tokens in generation, state cleared before the clock, the device idle when the
clock starts, and the last logits on the host before it stops. llama-bench (tools/llama-bench/llama-bench.cpp) draws
the same boundary except that it only waits for the device; web-rwkv can do nothing else than copy the logits.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pytest_rwkvperf.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.backends.base import Engine
    from pytest_rwkvperf.cases import Workload

VERSION = 1
"""Part of every stored session: figures of different protocol versions are not compared."""

_SEED = 7


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition: when it started (Unix time, seconds), how long it took, and each generated token's share."""

    started: float
    nanoseconds: int
    token_nanoseconds: tuple[int, ...]


@lru_cache
def token_ids(count: int, vocabulary: int) -> tuple[int, ...]:
    """Seeded token ids, never 0 (the end of text).

    `Random.random` gives the same sequence on every Python (documented under "Notes on Reproducibility").
    """
    source = random.Random(_SEED)
    return tuple(1 + int(source.random() * (vocabulary - 1)) for _ in range(count))


def check_tokens(engine: Engine, tokens: Sequence[int]) -> None:
    """Refuse ids the engine would read outside its embedding for.

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


def run(engine: Engine, workload: Workload, chunk: int) -> Sample:
    """Time one repetition of a workload from a cleared state."""
    measured = _begin(engine, workload, chunk)
    pieces = [measured[start : start + chunk] for start in range(0, len(measured), chunk)]
    engine.synchronise()
    if workload.kind == "prefill":
        return _time_prefill(engine, pieces)
    return _time_generation(engine, measured)


def _begin(engine: Engine, workload: Workload, chunk: int) -> Sequence[int]:
    """Clear the state and read the context; the tokens to be measured."""
    engine.clear()
    if workload.depth:
        prefill(engine, token_ids(workload.depth, engine.vocabulary), chunk)
        engine.logits()
    return _tokens(engine, workload)


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


def run_slice(engine: Engine, workload: Workload, chunk: int, start: int, count: int) -> Sample:
    """Time some tokens of a generation, from its `start`th on; between slices the state is kept and no clock runs.

    The first clears the state and reads the context. All slices of a generation one after the other are `run`'s work.
    """
    tokens = _begin(engine, workload, chunk) if start == 0 else _tokens(engine, workload)
    engine.synchronise()
    return _time_generation(engine, tokens[start : start + count])


def joined(slices: Sequence[Sample]) -> Sample:
    """A generation of its slices."""
    shares = tuple(share for one in slices for share in one.token_nanoseconds)
    return Sample(slices[0].started, sum(one.nanoseconds for one in slices), shares)
