"""Planted bugs that the parity check must detect.

Bugs that a model file can hold are planted in the file, which a real engine then reads: the weights are those of a
faulty converter or loader. Bugs in the arithmetic are planted in this project's own NumPy engine. Each is small: one
layer of several, one pair of tensors, two tokens.
"""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pytest_rwkvperf.backends.reference import ReferenceEngine
from pytest_rwkvperf.models.shapes import TensorSpec
from pytest_rwkvperf.models.weights import DTYPES
from pytest_rwkvperf.oracle import rwkv7
from pytest_rwkvperf.oracle.rwkv7 import Oracle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.weights import Array, Weights
    from pytest_rwkvperf.oracle.rwkv7 import Doubles, Floats, LayerState

LAYER = "blocks.1."
"""The layer of one-layer bugs: neither the first, which has no value residual, nor the last."""

_Q4_BLOCK, _Q4_STEPS = 32, 7


class _Changed:
    """Weights with some tensors replaced."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.shape = weights.shape
        self.precision: Precision = weights.precision

    def rows(self, spec: TensorSpec, start: int, stop: int, precision: Precision | None = None) -> Array:
        """See `Weights.rows`."""
        changed = self._changed(spec)
        if changed is None:
            return self._weights.rows(spec, start, stop, precision)
        values: Array = changed.reshape(spec.rows, spec.row_size)[start:stop]
        return values.astype(DTYPES[precision or self.precision])

    def _changed(self, spec: TensorSpec) -> Array | None:
        raise NotImplementedError

    def _whole(self, spec: TensorSpec) -> Array:
        return self._weights.rows(spec, 0, spec.rows, "f32").reshape(spec.shape)


class TransposedLora(_Changed):
    """One layer's first low-rank matrix of the decay, with its values in the transpose's order."""

    def _changed(self, spec: TensorSpec) -> Array | None:
        if spec.name != f"{LAYER}att.w1":
            return None
        transposed: Array = np.ascontiguousarray(self._whole(spec).T)
        return transposed


class SwappedLerps(_Changed):
    """The token-shift weights of key and value swapped in one layer."""

    def _changed(self, spec: TensorSpec) -> Array | None:
        other = {f"{LAYER}att.x_k": "x_v", f"{LAYER}att.x_v": "x_k"}.get(spec.name)
        return None if other is None else self._whole(TensorSpec(f"{LAYER}att.{other}", spec.shape))


class WrongDecaySign(_Changed):
    """-w0 instead of w0 in one layer."""

    def _changed(self, spec: TensorSpec) -> Array | None:
        return -self._whole(spec) if spec.name == f"{LAYER}att.w0" else None


class RoundedHead(_Changed):
    """The head matrix rounded to four bits: blocks of 32 values, 15 steps around zero."""

    def rows(self, spec: TensorSpec, start: int, stop: int, precision: Precision | None = None) -> Array:
        """See `Weights.rows`."""
        values = self._weights.rows(spec, start, stop, "f32" if spec.name == "head.weight" else precision)
        if spec.name != "head.weight":
            return values
        blocks = values.reshape(-1, _Q4_BLOCK)
        scale = np.abs(blocks).max(axis=1, keepdims=True) / _Q4_STEPS
        rounded: Array = np.rint(blocks / np.where(scale == 0, 1, scale)) * scale
        return rounded.reshape(stop - start, spec.row_size).astype(DTYPES[precision or self.precision])


class DroppedLayer(_Changed):
    """Layer 1 left out."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        self.shape = dataclasses.replace(weights.shape, layers=weights.shape.layers - 1)

    def rows(self, spec: TensorSpec, start: int, stop: int, precision: Precision | None = None) -> Array:
        """See `Weights.rows`."""
        match = re.match(r"blocks\.(\d+)\.", spec.name)
        if match and int(match[1]) >= 1:
            name = f"blocks.{int(match[1]) + 1}.{spec.name[match.end() :]}"
            spec = dataclasses.replace(spec, name=name)
        return self._weights.rows(spec, start, stop, precision)


class _OtherEpsilon(Oracle):
    def _group_norm(self, x: Doubles, name: str) -> Floats:
        before, rwkv7.GROUP_NORM_EPSILON = rwkv7.GROUP_NORM_EPSILON, 1e-5
        try:
            return super()._group_norm(x, name)
        finally:
            rwkv7.GROUP_NORM_EPSILON = before


class _FirstLayerResidual(Oracle):
    """Layer 0 blends its values too, towards an unset first value, with the `.gguf`'s placeholders."""

    def _time_mix(
        self, x: Floats, prefix: str, state: LayerState, first_values: Floats | None
    ) -> tuple[Floats, Floats]:
        return super()._time_mix(x, prefix, state, np.zeros_like(x) if first_values is None else first_values)

    def _blend_values(self, x: Floats, v: Floats, first: Floats, prefix: str) -> Floats:
        if prefix != "blocks.0.att.":
            return super()._blend_values(x, v, first, prefix)
        share = 1 / (1 + np.exp(-self._lora(x, prefix, "a") - self._vector(prefix + "a0")))
        blended: Floats = v + (first - v) * share
        return blended


class _KeptState(ReferenceEngine):
    def clear(self) -> None:
        """Nothing."""


class _WrongOrder(ReferenceEngine):
    """The first two tokens of a call are swapped."""

    def prefill(self, tokens: Sequence[int]) -> None:
        """See `Engine.prefill`."""
        super().prefill([*tokens[1::-1], *tokens[2:]])


IN_FILES: dict[str, Callable[[Weights], Weights]] = {
    "one LoRA transposed": TransposedLora,
    "two lerps swapped": SwappedLerps,
    "w0 of the wrong sign": WrongDecaySign,
    "head rounded to 4 bits": RoundedHead,
    "one layer dropped": DroppedLayer,
}
"""From correct weights to those of a file with the bug."""


def _engine(of: type[ReferenceEngine], oracle: type[Oracle], weights: Weights) -> ReferenceEngine:
    return of(oracle(weights))


IN_ENGINES: dict[str, Callable[[Weights], ReferenceEngine]] = {
    "state not cleared": partial(_engine, _KeptState, Oracle),
    "value residual in layer 0": partial(_engine, ReferenceEngine, _FirstLayerResidual),
    "group-norm epsilon 1e-5": partial(_engine, ReferenceEngine, _OtherEpsilon),
    "two tokens swapped": partial(_engine, _WrongOrder, Oracle),
}
"""From weights to a NumPy engine with the bug."""
