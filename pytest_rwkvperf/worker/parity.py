"""The parity check inside the worker: the engine's logits against the oracle's, by every path that is timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_rwkvperf.core.samples import KNOWN_SEED
from pytest_rwkvperf.oracle.agreement import (
    DEPTH,
    ODD_CHUNK,
    PROMPT,
    Agreement,
    Deep,
    Fresh,
    Short,
    agreement,
    relative_l2,
)
from pytest_rwkvperf.worker import protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.core.engine import Engine
    from pytest_rwkvperf.oracle.agreement import Floats


DECODED = 8
"""How many tokens the second pass feeds one by one, along the generation path."""


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


def in_pieces(
    engine: Engine, chunk: int, workload: Workload, tokens: Sequence[int], logits: Floats, noise: float
) -> Agreement:
    """Compare what a repetition of these tokens ended with with what they give in pieces, from a cleared state.

    The context is read again, in pieces too. A generation's tokens are fed as a prompt.
    """
    source = protocol.unforeseeable()
    engine.clear()
    if workload.depth:
        _feed(engine, protocol.token_ids(workload.depth, engine.vocabulary, KNOWN_SEED), chunk, source)
    if workload.kind == "prefill" and len(tokens) > 1:
        _feed(engine, tokens[:-1], chunk, source)
        engine.decode(tokens[-1])
    else:
        _feed(engine, tokens, chunk, source)
    found = engine.logits().copy()
    engine.clear()
    if not np.isfinite(found).all():
        return Agreement(finite=False, relative_l2=-1.0, kl=-1.0, top_matches=None)
    return agreement(logits, found, noise)


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
