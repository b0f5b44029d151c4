"""The uniform protocol, the same for every backend; it runs inside the worker.

Token ids are made beforehand, also those of generations, and are new in each repetition, so that an engine that reuses
an earlier answer gives a wrong one. A repetition whose answer is compared with the oracle's gets the known prompt
instead. The state is cleared or brought to the workload's depth, and the device is idle, before the clock starts; the
last logits are on the host before it stops. llama-bench (tools/llama-bench/llama-bench.cpp) times the same, also with
new tokens in each repetition, except that it only waits for the device; web-rwkv always copies the logits.

The sequences of a batch have different prompts and contexts. A prefill's calls have at most a chunk of tokens in all,
the same number of each sequence and at least one. A generation's steps have one token of each sequence, and the logits
of all are on the host before the next step begins. llama-batched-bench (tools/batched-bench/batched-bench.cpp) decodes
in the same steps, and only waits for the device; its prefills have one sequence after the other in a call.
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
    from pytest_rwkvperf.core.engine import Batch, Engine
    from pytest_rwkvperf.oracle.agreement import Floats

VERSION = 1
"""Part of every stored session: figures of different protocol versions are not compared."""

Prompt = tuple[int, ...]


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


def shares(prompts: Sequence[Sequence[int]], chunk: int) -> list[list[Sequence[int]]]:
    """The calls that feed a prompt to each sequence of a batch: an equal share of the chunk, at least one token.

    A sequence whose prompt has ended gets an empty part.
    """
    share = share_of(chunk, len(prompts))
    longest = max(map(len, prompts))
    return [[prompt[start : start + share] for prompt in prompts] for start in range(0, longest, share)]


def share_of(chunk: int, sequences: int) -> int:
    """How many tokens of each sequence a call has."""
    return max(1, chunk // sequences)


@dataclass(slots=True)
class Repetitions:
    """What the repetitions of one process leave to later ones, and the last one's answer.

    The states after each depth are computed once and restored before every repetition at that depth. They have the same
    size at any depth. llama-bench does the same (llama.cpp #16944). The context is the beginning of the known prompt;
    of a batch one sequence has that, and each other one a context of its own.
    """

    vocabulary: int
    tokens: tuple[Prompt, ...] = ()
    """Of the last repetition, after its context, by sequence."""
    logits: Floats | None = None
    """Those that it ended with: float32 [vocabulary], of a batch [sequences, vocabulary]; valid until the engine's next
    call."""
    _states: dict[tuple[int, int], Any] = field(default_factory=dict)
    _known: dict[int, int] = field(default_factory=dict)

    def known_sequence(self, batch: int) -> int:
        """The sequence that gets the known prompt in this process: of a batch one that the engine cannot foresee."""
        if batch not in self._known:
            self._known[batch] = unforeseeable().randrange(batch)
        return self._known[batch]

    def context(self, workload: Workload, sequence: int) -> Prompt:
        """What a sequence has read before a repetition begins."""
        other = (sequence - self.known_sequence(workload.batch)) % workload.batch
        return token_ids(workload.depth, self.vocabulary, KNOWN_SEED + other)

    def enter(self, engine: Engine | Batch, workload: Workload, chunk: int) -> None:
        """Bring the states to the workload's depth; 0 is the cleared state."""
        if not workload.depth:
            engine.clear()
            return
        key = workload.depth, workload.batch
        if key not in self._states:
            engine.clear()
            contexts = tuple(self.context(workload, sequence) for sequence in range(workload.batch))
            for part in _parts(contexts, chunk):
                engine.prefill(part)
            self._states[key] = engine.save_state()
        engine.load_state(self._states[key])

    def forget_batches(self) -> None:
        """Drop the states of batches, which are of no use to another batch."""
        self._states = {key: state for key, state in self._states.items() if key[1] == 1}

    def draw(self, workload: Workload, *, known: bool) -> None:
        """Set the tokens of the next repetition: new ones, or for one sequence those of the known prompt."""
        drawn = [drawn_ids(unforeseeable(), workload.tokens, self.vocabulary) for _ in range(workload.batch)]
        if known:
            prompt = token_ids(workload.depth + workload.tokens, self.vocabulary, KNOWN_SEED)
            drawn[self.known_sequence(workload.batch)] = prompt[workload.depth :]
        self.tokens = tuple(drawn)


def _parts(prompts: Sequence[Prompt], chunk: int) -> Sequence[Any]:
    """The calls of a prefill: chunks of the only prompt, or shares of each."""
    if len(prompts) > 1:
        return shares(prompts, chunk)
    (prompt,) = prompts
    return [prompt[start : start + chunk] for start in range(0, len(prompt), chunk)]


def _steps(prompts: Sequence[Prompt]) -> Sequence[Any]:
    """The steps of a generation: the only prompt's tokens, or one of each prompt."""
    return prompts[0] if len(prompts) == 1 else [*zip(*prompts, strict=True)]


def run(
    engine: Engine | Batch, workload: Workload, chunk: int, repetitions: Repetitions, *, known: bool = False
) -> Sample:
    """Time one repetition of a workload from the state at its depth, with new tokens or with the known prompt's.

    `engine` is a batch of the workload's number of sequences where that is more than one.
    """
    repetitions.draw(workload, known=known)
    repetitions.enter(engine, workload, chunk)
    prefills = workload.kind == "prefill"
    measured = _parts(repetitions.tokens, chunk) if prefills else _steps(repetitions.tokens)
    engine.synchronise()
    if prefills:
        sample, repetitions.logits = _time_prefill(engine, measured)
    else:
        sample, repetitions.logits = _time_generation(engine, measured)
    return sample


def _time_prefill(engine: Engine | Batch, parts: Sequence[Any]) -> tuple[Sample, Floats]:
    wall, clock = time.time(), time.perf_counter_ns
    started = clock()
    for part in parts:
        engine.prefill(part)
    logits = engine.logits()
    return Sample(wall, clock() - started, ()), logits


def _time_generation(engine: Engine | Batch, steps: Sequence[Any]) -> tuple[Sample, Floats | None]:
    wall, clock = time.time(), time.perf_counter_ns
    logits: Floats | None = None
    stamps = [0] * len(steps)
    started = clock()
    for index, step in enumerate(steps):
        engine.decode(step)
        logits = engine.logits()
        stamps[index] = clock()
    each = tuple(stop - start for start, stop in zip((started, *stamps), stamps, strict=False))
    return Sample(wall, stamps[-1] - started, each), logits


def run_slice(
    engine: Engine | Batch,
    workload: Workload,
    chunk: int,
    repetitions: Repetitions,
    start: int,
    count: int,
    *,
    known: bool = False,
) -> Sample:
    """Time `count` steps of a generation from its `start`th on; the slices of a generation make `run`'s repetition.

    The first one begins at the workload's depth and chooses the tokens, each other one goes on where the last ended.
    """
    if start == 0:
        repetitions.draw(workload, known=known)
        repetitions.enter(engine, workload, chunk)
    steps = _steps([prompt[start : start + count] for prompt in repetitions.tokens])
    engine.synchronise()
    sample, repetitions.logits = _time_generation(engine, steps)
    return sample


def joined(slices: Sequence[Sample]) -> Sample:
    """A generation from its slices."""
    each = tuple(time for part in slices for time in part.token_nanoseconds)
    return Sample(slices[0].started, sum(part.nanoseconds for part in slices), each)
