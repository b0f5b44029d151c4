"""The parity check inside the worker: the engine's logits against the oracle's, by every path that is timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.oracle.agreement import DEPTH, ODD_CHUNK, PROMPT, Deep, Short, agreement, relative_l2
from pytest_rwkvperf.worker import protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from pytest_rwkvperf.core.engine import Engine

    Floats = npt.NDArray[np.float32]


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


def _pass(engine: Engine, prompt: Sequence[int], chunk: int) -> Floats:
    engine.clear()
    protocol.prefill(engine, prompt, chunk)
    return engine.logits().copy()
