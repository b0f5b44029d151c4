"""The uniform protocol, the same for every backend; it runs inside the worker.

Token ids are made beforehand, also those of generations, and are new in each repetition, so that an engine that reuses
an earlier answer gives a wrong one. A repetition whose answer is compared with the oracle's gets the known prompt
instead. The state is cleared or brought to the workload's depth, and the device is idle, before the clock starts; the
last logits are on the host before it stops. llama-bench (tools/llama-bench/llama-bench.cpp) times the same, also with
new tokens in each repetition, except that it only waits for the device; web-rwkv always copies the logits.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.samples import CHECK_SEED, KNOWN_SEED, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.core.engine import Engine
    from pytest_rwkvperf.oracle.agreement import Floats

VERSION = 1
"""Part of every stored session: figures of different protocol versions are not compared."""


@lru_cache
def token_ids(count: int, vocabulary: int, seed: int = CHECK_SEED) -> tuple[int, ...]:
    """Seeded token ids, never 0 (the end of text); a longer prompt begins with the shorter one of its seed.

    `Random.random` gives the same sequence on every Python (documented under "Notes on Reproducibility").
    """
    return drawn_ids(random.Random(seed), count, vocabulary)


def drawn_ids(source: random.Random, count: int, vocabulary: int) -> tuple[int, ...]:
    """As `token_ids`, from any source."""
    return tuple(1 + int(source.random() * (vocabulary - 1)) for _ in range(count))


def unforeseeable() -> random.Random:
    """A source whose seed comes from the operating system."""
    return random.Random(random.SystemRandom().getrandbits(64))


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


@dataclass(slots=True)
class Repetitions:
    """What the repetitions of one process leave to later ones, and the last one's answer.

    The state after each depth is computed once, from the known prompt, and restored before every repetition at that
    depth. It has the same size at any depth. llama-bench does the same (llama.cpp #16944).
    """

    tokens: tuple[int, ...] = ()
    """Of the last repetition, after its context."""
    logits: Floats | None = None
    """Those that it ended with: float32 [vocabulary], valid until the engine's next call."""
    _states: dict[int, Any] = field(default_factory=dict)

    def enter(self, engine: Engine, depth: int, chunk: int) -> None:
        """Bring the engine's state to that depth; 0 is the cleared state."""
        if not depth:
            engine.clear()
            return
        if depth not in self._states:
            engine.clear()
            prefill(engine, token_ids(depth, engine.vocabulary, KNOWN_SEED), chunk)
            self._states[depth] = engine.save_state()
        engine.load_state(self._states[depth])

    def draw(self, engine: Engine, workload: Workload, *, known: bool) -> None:
        """Set the tokens of the next repetition: those of the known prompt after the context, or new ones."""
        vocabulary = engine.vocabulary
        if known:
            prompt = token_ids(workload.depth + workload.tokens, vocabulary, KNOWN_SEED)
            self.tokens = prompt[workload.depth :]
        else:
            self.tokens = drawn_ids(unforeseeable(), workload.tokens, vocabulary)


def run(engine: Engine, workload: Workload, chunk: int, repetitions: Repetitions, *, known: bool = False) -> Sample:
    """Time one repetition of a workload from the state at its depth, with new tokens or with the known prompt's."""
    repetitions.draw(engine, workload, known=known)
    repetitions.enter(engine, workload.depth, chunk)
    measured = repetitions.tokens
    pieces = [measured[start : start + chunk] for start in range(0, len(measured), chunk)]
    engine.synchronise()
    if workload.kind == "prefill":
        sample, repetitions.logits = _time_prefill(engine, pieces)
    else:
        sample, repetitions.logits = _time_generation(engine, measured)
    return sample


def _time_prefill(engine: Engine, pieces: Sequence[Sequence[int]]) -> tuple[Sample, Floats]:
    wall, clock = time.time(), time.perf_counter_ns
    started = clock()
    for piece in pieces:
        engine.prefill(piece)
    logits = engine.logits()
    return Sample(wall, clock() - started, ()), logits


def _time_generation(engine: Engine, tokens: Sequence[int]) -> tuple[Sample, Floats | None]:
    wall, clock = time.time(), time.perf_counter_ns
    logits: Floats | None = None
    stamps = [0] * len(tokens)
    started = clock()
    for index, token in enumerate(tokens):
        engine.decode(token)
        logits = engine.logits()
        stamps[index] = clock()
    shares = tuple(stop - start for start, stop in zip((started, *stamps), stamps, strict=False))
    return Sample(wall, stamps[-1] - started, shares), logits


def run_slice(
    engine: Engine,
    workload: Workload,
    chunk: int,
    repetitions: Repetitions,
    start: int,
    count: int,
    *,
    known: bool = False,
) -> Sample:
    """Time `count` tokens of a generation from its `start`th on; the slices of a generation make `run`'s repetition.

    The first one begins at the workload's depth and chooses the tokens, each other one goes on where the last ended.
    """
    if start == 0:
        repetitions.draw(engine, workload, known=known)
        repetitions.enter(engine, workload.depth, chunk)
    engine.synchronise()
    sample, repetitions.logits = _time_generation(engine, repetitions.tokens[start : start + count])
    return sample


def joined(slices: Sequence[Sample]) -> Sample:
    """A generation from its slices."""
    shares = tuple(share for part in slices for share in part.token_nanoseconds)
    return Sample(slices[0].started, sum(part.nanoseconds for part in slices), shares)
