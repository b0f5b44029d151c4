"""The distance of an engine's logits from the oracle's, and the results of the parity checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pytest_rwkvperf.core.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]


PROMPT = 32
"""Tokens of the short check."""

DEPTH = 600
"""Tokens of the deep check: past every chunk boundary in use."""

ODD_CHUNK = 37
"""A chunk that no engine uses, so that chunk boundaries fall elsewhere than in the case."""


BATCH_STARTS = tuple(range(1, 17))
BATCH_STEPS = 4
BATCH_LENGTHS = tuple(sorted({*BATCH_STARTS, *(start + BATCH_STEPS for start in BATCH_STARTS)}))
"""Tokens after which the oracle's logits are known for the check of batches: each of BATCH_STARTS, which are lengths of
sequences' prompts, and BATCH_STEPS tokens later. After so few tokens each of them weighs: with the state of a prompt
that is one token longer or shorter, logits of synthetic:nano differ by 0.11 or more (relative L2) after the steps."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """An engine's logits compared with the oracle's. `top_matches` is None when the oracle's top token is not clear.

    `relative_l2` is |engine - oracle| / |oracle|; `kl` is the Kullback-Leibler divergence of the engine's softmax from
    the oracle's, in nats. Both are -1 where the engine's logits are not finite or not as many as the oracle's.
    """

    finite: bool
    relative_l2: float
    kl: float
    top_matches: bool | None


@dataclass(frozen=True, slots=True)
class Short:
    """Result of the check of every process: a prefill of PROMPT tokens, one with the last tokens decoded, and a third.

    The state is cleared before each pass. The third repeats the first, and `repeat` is the relative L2 between them,
    -1 where one is not finite.
    """

    prefill: Agreement
    generation: Agreement
    repeat: float


@dataclass(frozen=True, slots=True)
class Deep:
    """Result of the check once per engine version, file, quant, device and chunk: DEPTH tokens in the case's chunks.

    `rechunked` is the relative L2 between that and the same tokens in chunks of ODD_CHUNK, -1 where one is not finite.
    """

    prefill: Agreement
    rechunked: float


@dataclass(frozen=True, slots=True)
class Fresh:
    """Result of the check in a case's first process of each run: a prompt of new random tokens, fed in two ways.

    As long as the longest workload, in the case's chunks and in pieces of random lengths. `whole` and `at_position`
    are the relative L2 between the two ways' logits, after all tokens and after a random number of them; -1 where one
    is not finite. `changed` says that the tokens after the position have changed the logits.
    """

    tokens: int
    position: int
    whole: float
    at_position: float
    changed: bool


@dataclass(frozen=True, slots=True)
class OfSequence:
    """How far the worst sequence of a batch, from 0, lies from the oracle."""

    sequence: int
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Batched:
    """Result of the check of so many sequences at once, in every process that times such a batch.

    Against the oracle: prompts of different lengths that start at different calls (`prefill`), and all sequences after
    BATCH_STEPS common steps (`generation`). The others are relative L2, each with the sequence that it was found in, -1
    where logits are not finite: of new prompts against the same sequence `alone`; of all other sequences after one was
    cleared and fed anew against their logits without that (`neighbours`).
    """

    sequences: int
    prefill: OfSequence
    generation: OfSequence
    alone: tuple[int, float]
    neighbours: tuple[int, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one timed repetition of a workload ended with: the `repetition`th that counts in its process, from 1.

    Compared with the oracle's logits for the known prompt, or, where the oracle would take too long, with the engine's
    own for the same tokens in pieces of random lengths. Of a batch both: one `sequence`, from 0, had the known prompt,
    and some others are compared with themselves alone.
    """

    repetition: int
    compared_with: Literal["oracle", "pieces"]
    agreement: Agreement
    sequence: int = 0


def agreement(engine: Floats, oracle: Floats, noise: float) -> Agreement:
    """Compare logits [vocabulary] with the oracle's.

    The top token is compared where the oracle's margin over the second is larger than errors of relative size `noise`
    can close: twice four standard errors of a single logit, each `noise` times the logits' root mean square. This
    detects errors in few logits, which the relative L2 over all of them does not show.

    Raises:
        ModelError: the oracle's logits are not finite.
    """
    if not np.isfinite(oracle).all():
        raise ModelError(
            "the oracle's own logits are not finite: the model's weights hold NaN or infinity, or overflow float32;"
            " no engine can give a right answer for it, take another file"
        )
    if engine.shape != oracle.shape or not np.isfinite(engine).all():
        return Agreement(finite=False, relative_l2=-1.0, kl=-1.0, top_matches=None)
    got, want = engine.astype(np.float64), oracle.astype(np.float64)
    second, first = np.partition(want, -2)[-2:]
    clear = first - second > 8 * noise * np.sqrt(np.mean(np.square(want)))
    log_got, log_want = _log_softmax(got), _log_softmax(want)
    return Agreement(
        finite=True,
        relative_l2=relative_l2(got, want),
        kl=max(0.0, float(np.sum(np.exp(log_want) * (log_want - log_got)))),
        top_matches=bool(np.argmax(got) == np.argmax(want)) if clear else None,
    )


def relative_l2(got: npt.NDArray[np.floating], want: npt.NDArray[np.floating]) -> float:
    """|got - want| / |want|, 0 when both are zero; -1 where one of them is not finite, since JSON has no NaN."""
    if not (np.isfinite(got).all() and np.isfinite(want).all()):
        return -1.0
    wide = want.astype(np.float64)  # squares of float32 values do not overflow
    length, error = _norm(wide), _norm(got.astype(np.float64) - wide)
    return error / length if length else error


def _norm(vector: npt.NDArray[np.float64]) -> float:
    """Not NumPy's, which wakes BLAS's threads for it: with other processes beside it that takes milliseconds."""
    return float(np.sqrt(np.sum(np.square(vector))))


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max()
    result: npt.NDArray[np.float64] = shifted - np.log(np.sum(np.exp(shifted)))
    return result
