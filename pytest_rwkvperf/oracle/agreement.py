"""How far an engine's logits lie from the oracle's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Agreement:
    """One pair of logits. `top_matches` is None when the oracle's own top token is not clear.

    `relative_l2` is |engine - oracle| / |oracle|; `kl` is the Kullback-Leibler divergence of the engine's softmax from
    the oracle's, in nats. Both are -1 where the engine's logits are not finite.
    """

    finite: bool
    relative_l2: float
    kl: float
    top_matches: bool | None


def agreement(engine: Floats, oracle: Floats, noise: float) -> Agreement:
    """Compare logits [vocabulary] with the oracle's.

    The top token counts where the oracle's margin over the second is wider than errors of relative size `noise` can
    close: twice four standard errors of a single logit, `noise` times the logits' root mean square each.
    """
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
    """|got - want| / |want|; 0 when both are zero."""
    length = float(np.linalg.norm(want))
    return float(np.linalg.norm(got - want)) / length if length else float(np.linalg.norm(got))


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max()
    result: npt.NDArray[np.float64] = shifted - np.log(np.sum(np.exp(shifted)))
    return result
