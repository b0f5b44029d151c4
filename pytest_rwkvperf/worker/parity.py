"""The parity check inside the worker: the engine's logits against the oracle's, by every path that is timed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_rwkvperf.oracle.agreement import (
    BATCH_LENGTHS,
    BATCH_STARTS,
    BATCH_STEPS,
    DEPTH,
    ODD_CHUNK,
    PROMPT,
    Agreement,
    Batched,
    Deep,
    Fresh,
    OfSequence,
    Short,
    agreement,
    relative_l2,
)
from pytest_rwkvperf.oracle.bounds import Bound, excess
from pytest_rwkvperf.worker import protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.core.engine import Batch, Engine
    from pytest_rwkvperf.oracle.agreement import Floats


DECODED = 8
"""How many tokens the second pass feeds one by one, along the generation path."""

ALONE = 8
"""Most sequences of a batch that are also computed alone in its check; COMPARED of a timed repetition."""

COMPARED = 3

NEW_PROMPT = 24
"""Most tokens of the new prompts of a batch's check."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What one sequence of a repetition read, its context first, and the logits that it ended with."""

    sequence: int
    context: tuple[int, ...]
    tokens: tuple[int, ...]
    logits: Floats


def tokens(vocabulary: int, count: int) -> tuple[int, ...]:
    """The fixed prompt."""
    return protocol.token_ids(count, vocabulary)


def short(engine: Engine, chunk: int, expected: Floats, noise: float) -> Short:
    """Run the short check; the engine's state is clear afterwards.

    Args:
        engine: an open engine.
        chunk: the case's chunk.
        expected: the oracle's logits after PROMPT tokens.
        noise: the bound on the relative L2, from which the top token's clear margin follows.
    """
    prompt = tokens(engine.vocabulary, PROMPT)
    first = _pass(engine, prompt, chunk)
    engine.clear()
    protocol.prefill(engine, prompt[:-DECODED], chunk)
    for token in prompt[-DECODED:]:
        engine.decode(token)
    generated = engine.logits().copy()
    again = _pass(engine, prompt, chunk)
    engine.clear()
    return Short(agreement(first, expected, noise), agreement(generated, expected, noise), relative_l2(again, first))


def deep(engine: Engine, chunk: int, expected: Floats, noise: float) -> Deep:
    """Run the deep check; `expected` holds the oracle's logits after DEPTH tokens, the rest is as for `short`."""
    prompt = tokens(engine.vocabulary, DEPTH)
    whole = _pass(engine, prompt, chunk)
    rechunked = _pass(engine, prompt, min(ODD_CHUNK, chunk))
    engine.clear()
    return Deep(agreement(whole, expected, noise), relative_l2(rechunked, whole))


def fresh(engine: Engine, chunk: int, count: int, source: random.Random) -> Fresh:
    """Feed a prompt of `count` new tokens, at least 2, in the case's chunks and in pieces, and compare the logits.

    They are compared after all tokens, and after a number of them that `source` chooses, as it does the tokens and the
    pieces.
    """
    prompt = protocol.drawn_ids(source, count, engine.vocabulary)
    position = source.randrange(1, count)
    whole, at_position = _pass(engine, prompt, chunk), _pass(engine, prompt[:position], chunk)
    engine.clear()
    _feed(engine, prompt[:position], chunk, source)
    before = engine.logits().copy()
    _feed(engine, prompt[position:], chunk, source)
    after = engine.logits().copy()
    engine.clear()
    return Fresh(
        count, position, relative_l2(after, whole), relative_l2(before, at_position), not np.array_equal(before, after)
    )


def kept(repetitions: protocol.Repetitions, workload: Workload, logits: Floats, *, known: bool) -> list[KeptAnswer]:
    """Of the last repetition the only sequence, or of a batch up to COMPARED that the engine cannot foresee.

    Where one of the batch was `known` and has been compared, it is left out. `logits` is [sequences, vocabulary].
    """
    chosen = [*range(workload.batch)]
    if workload.batch > 1:
        if known:
            chosen.remove(repetitions.known_sequence(workload.batch))
        chosen = protocol.unforeseeable().sample(chosen, min(COMPARED, len(chosen)))
    return [
        KeptAnswer(each, repetitions.context(workload, each), repetitions.tokens[each], logits[each].copy())
        for each in chosen
    ]


def worst_in_pieces(
    engine: Engine, chunk: int, workload: Workload, answers: Sequence[KeptAnswer], noise: float
) -> OfSequence:
    """The worst of `in_pieces` of some sequences of a repetition."""
    found = [OfSequence(each.sequence, in_pieces(engine, chunk, workload, each, noise)) for each in answers]
    return _worst(found, noise)


def in_pieces(engine: Engine, chunk: int, workload: Workload, answer: KeptAnswer, noise: float) -> Agreement:
    """Compare what a repetition of these tokens ended with with what they give in pieces, from a cleared state.

    The context is read again, in pieces too. A generation's tokens are fed as a prompt.
    """
    source, tokens = protocol.unforeseeable(), answer.tokens
    engine.clear()
    if answer.context:
        _feed(engine, answer.context, chunk, source)
    if workload.kind == "prefill" and len(tokens) > 1:
        _feed(engine, tokens[:-1], chunk, source)
        engine.decode(tokens[-1])
    else:
        _feed(engine, tokens, chunk, source)
    found = engine.logits().copy()
    engine.clear()
    if not np.isfinite(found).all():
        return Agreement(finite=False, relative_l2=-1.0, kl=-1.0, top_matches=None)
    return agreement(answer.logits, found, noise)


def batch(
    engine: Engine, batch: Batch, chunk: int, expected: Sequence[Floats], noise: float, source: random.Random
) -> Batched:
    """Run the check of a batch; all states are clear afterwards.

    Args:
        engine: the open engine, whose single sequence the batch's are compared with.
        batch: its sequences.
        chunk: the case's chunk.
        expected: the oracle's logits after each of BATCH_LENGTHS.
        noise: as for `short`.
        source: chooses orders, lengths and new tokens.
    """
    answers = dict(zip(BATCH_LENGTHS, expected, strict=True))
    prefills, generations = [], []
    for starts in passes(batch.sequences, source):
        prefill, generation = _against_the_oracle(batch, engine.vocabulary, chunk, answers, noise, starts, source)
        prefills.append(prefill)
        generations.append(generation)
    alone, neighbours = _against_itself(engine, batch, chunk, source)
    batch.clear()
    engine.clear()
    return Batched(batch.sequences, _worst(prefills, noise), _worst(generations, noise), alone, neighbours)


def passes(sequences: int, source: random.Random) -> list[list[int]]:
    """The length of each sequence's prompt in each pass against the oracle; any two sequences differ in at least one.

    The lengths of a sequence in all passes are the digits of a number of its own, in base len(BATCH_STARTS).
    """
    base, count = len(BATCH_STARTS), 1
    while base**count < sequences:
        count += 1
    numbers = source.sample(range(base**count), sequences)
    return [[BATCH_STARTS[number // base**digit % base] for number in numbers] for digit in range(count)]


def _against_the_oracle(
    batch: Batch,
    vocabulary: int,
    chunk: int,
    expected: Mapping[int, Floats],
    noise: float,
    starts: Sequence[int],
    source: random.Random,
) -> tuple[OfSequence, OfSequence]:
    """One pass: each sequence reads `starts` tokens of the fixed prompt, then BATCH_STEPS more.

    So a state that was swapped, shared or dropped stands for another number of tokens.
    """
    prompt = tokens(vocabulary, BATCH_LENGTHS[-1])
    batch.clear()
    ends = feed_staggered(batch, [prompt[:start] for start in starts], chunk, source)
    prefill = _worst(
        [OfSequence(each, agreement(ends[each], expected[start], noise)) for each, start in enumerate(starts)], noise
    )
    for step in range(BATCH_STEPS):
        batch.decode([prompt[start + step] for start in starts])
    rows = batch.logits()
    generation = _worst(
        [
            OfSequence(each, agreement(rows[each], expected[start + BATCH_STEPS], noise))
            for each, start in enumerate(starts)
        ],
        noise,
    )
    return prefill, generation


def _against_itself(
    engine: Engine, batch: Batch, chunk: int, source: random.Random
) -> tuple[tuple[int, float], tuple[int, float]]:
    """New prompts: some sequences against themselves alone, and all others against themselves with one not cleared."""

    def new(count: int) -> tuple[int, ...]:
        return protocol.drawn_ids(source, count, engine.vocabulary)

    prompts = [new(source.randint(1, NEW_PROMPT)) for _ in range(batch.sequences)]
    step, cleared = new(batch.sequences), source.randrange(batch.sequences)
    batch.clear()
    ends = feed_staggered(batch, prompts, chunk, source)
    state = batch.save_state()
    batch.decode(step)
    before = batch.logits().copy()
    batch.load_state(state)
    batch.clear_sequence(cleared)
    prompts[cleared] = new(source.randint(1, NEW_PROMPT))
    only = [prompt if each == cleared else () for each, prompt in enumerate(prompts)]
    ends[cleared] = feed_staggered(batch, only, chunk, source)[cleared]
    batch.decode(step)
    after = batch.logits().copy()
    others = [each for each in range(batch.sequences) if each != cleared]
    neighbours = _farthest((each, relative_l2(after[each], before[each])) for each in others)
    chosen = {cleared, *source.sample(others, min(ALONE - 1, len(others)))}
    pairs = (
        (each, distance)
        for each in sorted(chosen)
        for distance in _distances_alone(engine, chunk, prompts[each], step[each], (ends[each], after[each]))
    )
    return _farthest(pairs), neighbours


def _distances_alone(
    engine: Engine, chunk: int, prompt: Sequence[int], step: int, found: tuple[Floats, Floats]
) -> tuple[float, float]:
    """How far a sequence's logits after its prompt and after one more token lie from those that it has alone."""
    alone = _pass(engine, prompt, chunk)
    engine.decode(step)
    return relative_l2(found[0], alone), relative_l2(found[1], engine.logits())


def feed_staggered(
    batch: Batch, prompts: Sequence[Sequence[int]], chunk: int, source: random.Random
) -> dict[int, Floats]:
    """Feed each sequence its prompt in calls that hold parts of some of them; the logits that each one ends with."""
    left = {each: prompt for each, prompt in enumerate(prompts) if prompt}
    ends: dict[int, Floats] = {}
    while left:
        parts: list[Sequence[int]] = [()] * batch.sequences
        for each, length in _staggered({each: len(rest) for each, rest in left.items()}, chunk, source).items():
            parts[each], left[each] = left[each][:length], left[each][length:]
        batch.prefill(parts)
        if any(not rest for rest in left.values()):
            rows = batch.logits()
            ends |= {each: rows[each].copy() for each, rest in left.items() if not rest}
        left = {each: rest for each, rest in left.items() if rest}
    return ends


def _staggered(left: Mapping[int, int], chunk: int, source: random.Random) -> dict[int, int]:
    """How many tokens a call reads of some sequences, of which so many are left.

    At least half are chosen, so that sequences start and end at different calls; they share the whole chunk, so that
    many sequences need few calls. The pieces have at most two lengths, because pieces of one length are computed
    together and others one after the other (llama.cpp's micro-batches, calls of a model of transformers).
    """
    chosen = source.sample([*left], source.randint((len(left) + 1) // 2, len(left)))
    longest = min(protocol.share_of(chunk, len(chosen)), max(left[each] for each in chosen))
    lengths = source.randint(1, longest), source.randint(1, longest)
    fitting = {each: [length for length in lengths if length <= left[each]] for each in chosen}
    return {each: source.choice(fits) for each, fits in fitting.items() if fits}


def _worst(found: Sequence[OfSequence], noise: float) -> OfSequence:
    bound = Bound(noise)
    return max(found, key=lambda each: excess(each.agreement, bound))


def _farthest(found: Iterable[tuple[int, float]]) -> tuple[int, float]:
    """The sequence with the largest distance; -1, for logits that are not finite, is beyond all."""
    return max(found, key=lambda pair: math.inf if pair[1] < 0 else pair[1])


def _feed(engine: Engine, tokens: Sequence[int], chunk: int, source: random.Random) -> None:
    """Continue with tokens in calls of random lengths."""
    for piece in pieces(len(tokens), chunk, source):
        protocol.prefill(engine, tokens[piece.start : piece.stop], chunk)


def pieces(count: int, chunk: int, source: random.Random) -> Iterator[range]:
    """Split `count` tokens into pieces of random lengths: between an eighth and a half of the case's longest call.

    None is as long as the case's calls, and few are so short that an engine becomes much slower.
    """
    longest = min(count, chunk)
    low, high = max(1, longest // 8), max(1, longest // 2)
    start = 0
    while start < count:
        stop = min(count, start + source.randint(low, high))
        yield range(start, stop)
        start = stop


def _pass(engine: Engine, prompt: Sequence[int], chunk: int) -> Floats:
    engine.clear()
    protocol.prefill(engine, prompt, chunk)
    return engine.logits().copy()
