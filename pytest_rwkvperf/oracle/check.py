"""The parity check itself, inside the worker: the engine's logits against the oracle's, by every path that is timed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.measure import protocol
from pytest_rwkvperf.oracle.agreement import Agreement, agreement, relative_l2

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from pytest_rwkvperf.backends.base import Engine

    Floats = npt.NDArray[np.float32]

PROMPT = 32
"""Tokens of the short check."""

DECODED = 8
"""How many of them the second pass feeds one by one, along the generation path."""

DEPTH = 600
"""Tokens of the deep check: past every chunk boundary in use."""

ODD_CHUNK = 37
"""A chunk nobody uses, to cross boundaries elsewhere than the case does."""


@dataclass(frozen=True, slots=True)
class Short:
    """The check of every process: the prompt in one call, its end token by token after a state clear, and again.

    `repeat` is the relative L2 between the first and the last of these passes, -1 where one is not finite.
    """

    prefill: Agreement
    generation: Agreement
    repeat: float


@dataclass(frozen=True, slots=True)
class Deep:
    """The check once per engine version, file, quant and device: DEPTH tokens in the case's chunks.

    `rechunked` is the relative L2 between that and the same tokens in chunks of ODD_CHUNK, -1 where one is not finite.
    """

    prefill: Agreement
    rechunked: float


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


def _pass(engine: Engine, prompt: Sequence[int], chunk: int) -> Floats:
    engine.clear()
    protocol.prefill(engine, prompt, chunk)
    return engine.logits().copy()
