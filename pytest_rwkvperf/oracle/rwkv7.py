"""RWKV-7 in NumPy, written from the paper and not from any engine's code.

Source: Peng et al., "RWKV-7 'Goose' with Expressive Dynamic State Evolution" (arXiv 2503.14456), the parts "Weight
Preparation", "The Weighted Key Value State Evolution", "WKV Bonus and Output" and "MLP" of its architecture section.
Activations are float32; sums in which errors could grow (normalisation, the recurrent state, dot products of heads)
are accumulated in float64. Weights are read in blocks from the memory map, so that far less memory is allocated than
the model's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pytest_rwkvperf.models.shapes import tensor_specs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_rwkvperf.models.shapes import Shape, TensorSpec
    from pytest_rwkvperf.models.weights import Weights

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


LAYER_NORM_EPSILON = 1e-5
"""PyTorch's default, which the released models were trained with."""

GROUP_NORM_EPSILON = 64e-5
"""Head size times 1e-5: `GroupNorm(H, C, eps=64e-5)` in the authors' public definition, RWKV-LM/RWKV-v7."""

DECAY_SCALE = float(np.exp(-0.5))
"""w_t = exp(-e^{-0.5} sigmoid(d_t)): Weight Preparation, the decay."""

_BLOCK_ELEMENTS = 1 << 23
"""Weights converted to float32 at once: 32 MiB."""


@dataclass(slots=True)
class LayerState:
    """One layer's recurrent state: the last inputs of its two mixings, and the heads' matrices."""

    time_mix_input: Floats
    channel_mix_input: Floats
    heads: Doubles


class Oracle:
    """One model with one recurrent state."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._shape = weights.shape
        self._specs = {spec.name: spec for spec in tensor_specs(weights.shape)}
        self.clear()

    @property
    def shape(self) -> Shape:
        """The model's dimensions."""
        return self._shape

    def clear(self) -> None:
        """Zero `state`, which has one LayerState per layer."""
        shape = self._shape
        self.state = [
            LayerState(
                np.zeros(shape.width, np.float32),
                np.zeros(shape.width, np.float32),
                np.zeros((shape.heads, shape.head_size, shape.head_size)),
            )
            for _ in range(shape.layers)
        ]

    def forward(self, tokens: Sequence[int]) -> Floats:
        """Advance the state by tokens; returns the last token's logits, float32 [vocabulary]."""
        x = self._rows("emb.weight", tokens)
        x = self._layer_norm(x, "blocks.0.ln0")
        first_values: Floats | None = None
        for layer, state in enumerate(self.state):
            prefix = f"blocks.{layer}."
            mixed, values = self._time_mix(self._layer_norm(x, prefix + "ln1"), prefix + "att.", state, first_values)
            first_values = values if first_values is None else first_values
            x = x + mixed
            x = x + self._channel_mix(self._layer_norm(x, prefix + "ln2"), prefix + "ffn.", state)
        logits: Floats = self._project(self._layer_norm(x[-1:], "ln_out"), "head.weight")[0]
        return logits

    def _time_mix(
        self, x: Floats, prefix: str, state: LayerState, first_values: Floats | None
    ) -> tuple[Floats, Floats]:
        """Time mixing: token shift, low-rank parameters, the generalised delta rule, gate and output."""
        shift = _shifted(x, state.time_mix_input) - x
        state.time_mix_input = x[-1].copy()
        mixed = {name: x + shift * self._vector(f"{prefix}x_{name}") for name in "rwkvag"}
        r = self._project(mixed["r"], prefix + "receptance.weight")
        k = self._project(mixed["k"], prefix + "key.weight")
        v = self._project(mixed["v"], prefix + "value.weight")
        decay = np.exp(
            -DECAY_SCALE * _sigmoid(self._lora(mixed["w"], prefix, "w", np.tanh) + self._vector(prefix + "w0"))
        )
        rate = _sigmoid(self._lora(mixed["a"], prefix, "a") + self._vector(prefix + "a0"))
        gate = self._lora(mixed["g"], prefix, "g", _sigmoid)
        values = v if first_values is None else self._blend_values(mixed["v"], v, first_values, prefix)
        removal = _normalised(k * self._vector(prefix + "k_k"), self._shape)
        k = k * (1 + (rate - 1) * self._vector(prefix + "k_a"))
        heads = _Heads(self._shape, r, decay, k, values, removal, rate)
        read = self._group_norm(heads.run(state.heads), prefix + "ln_x")
        read = read + heads.bonus(self._vector(prefix + "r_k"))
        return self._project(read * gate, prefix + "output.weight"), v

    def _blend_values(self, x: Floats, v: Floats, first: Floats, prefix: str) -> Floats:
        """Weight Preparation, the value residual: later layers move their values towards the first layer's."""
        share = _sigmoid(self._lora(x, prefix, "v") + self._vector(prefix + "v0"))
        blended: Floats = v + (first - v) * share
        return blended

    def _channel_mix(self, x: Floats, prefix: str, state: LayerState) -> Floats:
        """MLP: a squared-ReLU feed-forward on the shifted input, without a gate."""
        shift = _shifted(x, state.channel_mix_input) - x
        state.channel_mix_input = x[-1].copy()
        hidden = self._project(x + shift * self._vector(prefix + "x_k"), prefix + "key.weight")
        return self._project(np.square(np.maximum(hidden, 0)), prefix + "value.weight")

    def _lora(self, x: Floats, prefix: str, name: str, activation: Callable[[Floats], Floats] | None = None) -> Floats:
        """Weight Preparation, `loramlp`: a low-rank product with an activation between its factors."""
        inner: Floats = x @ self._matrix(f"{prefix}{name}1")
        active: Floats = inner if activation is None else activation(inner)
        product: Floats = active @ self._matrix(f"{prefix}{name}2")
        return product

    def _layer_norm(self, x: Floats, name: str) -> Floats:
        return _standardised(x, LAYER_NORM_EPSILON) * self._vector(name + ".weight") + self._vector(name + ".bias")

    def _group_norm(self, x: Doubles, name: str) -> Floats:
        """Each head's output is standardised by itself: x is [tokens, heads, head size]."""
        flat = _standardised(x, GROUP_NORM_EPSILON).reshape(len(x), self._shape.width)
        return flat * self._vector(name + ".weight") + self._vector(name + ".bias")

    def _project(self, x: Floats, name: str) -> Floats:
        """Multiply by a matrix held as [outputs, inputs], a block of outputs at a time."""
        spec = self._specs[name]
        outputs = np.empty((len(x), spec.rows), np.float32)
        step = max(1, _BLOCK_ELEMENTS // spec.row_size)
        for start in range(0, spec.rows, step):
            block = self._read(spec, start, min(start + step, spec.rows))
            outputs[:, start : start + len(block)] = x @ block.T
        return outputs

    def _rows(self, name: str, indices: Sequence[int]) -> Floats:
        spec = self._specs[name]
        return np.concatenate([self._read(spec, index, index + 1) for index in indices])

    def _matrix(self, name: str) -> Floats:
        spec = self._specs[name]
        return self._read(spec, 0, spec.rows)

    def _vector(self, name: str) -> Floats:
        return self._matrix(name).reshape(-1)

    def _read(self, spec: TensorSpec, start: int, stop: int) -> Floats:
        block: Floats = self._weights.rows(spec, start, stop, "f32").reshape(stop - start, spec.row_size)
        return block


class _Heads:
    """The recurrence of all heads over a sequence; everything is [tokens, heads, head size] in float64."""

    def __init__(
        self, shape: Shape, r: Floats, decay: Floats, k: Floats, v: Floats, removal: Floats, rate: Floats
    ) -> None:
        split = (len(r), shape.heads, shape.head_size)
        self._r, self._decay, self._k, self._v, self._removal, self._rate = (
            part.astype(np.float64).reshape(split) for part in (r, decay, k, v, removal, rate)
        )

    def run(self, state: Doubles) -> Doubles:
        """State evolution: S_t = S_{t-1} (diag(w_t) - k̂_t^T (a_t ⊙ k̂_t)) + v_t^T k_t, read out with r_t.

        `state` is [heads, values, keys] and is advanced in place.
        """
        outputs = np.empty_like(self._r)
        for step in range(len(self._r)):
            removal = self._removal[step]
            held = np.einsum("hvk,hk->hv", state, removal)
            state *= self._decay[step][:, None, :]
            state -= held[:, :, None] * (removal * self._rate[step])[:, None, :]
            state += self._v[step][:, :, None] * self._k[step][:, None, :]
            outputs[step] = np.einsum("hvk,hk->hv", state, self._r[step])
        return outputs

    def bonus(self, weight: Floats) -> Floats:
        """WKV bonus: the current token's own value, weighted by r (rho ⊙ k) of each head."""
        share = np.sum(self._r * self._k * weight.reshape(self._r.shape[1:]), axis=-1, keepdims=True)
        bonus: Floats = (share * self._v).reshape(len(self._r), -1).astype(np.float32)
        return bonus


def _shifted(x: Floats, previous: Floats) -> Floats:
    """Every token's predecessor."""
    return np.concatenate([previous[None, :], x[:-1]])


def _standardised(x: npt.NDArray[np.floating], epsilon: float) -> Floats:
    """Zero mean and unit variance along the last axis."""
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = np.mean(np.square(centred), axis=-1, keepdims=True)
    standardised: Floats = (centred / np.sqrt(variance + epsilon)).astype(np.float32)
    return standardised


def _normalised(x: Floats, shape: Shape) -> Floats:
    """Each head's part divided by its length; a zero vector stays zero."""
    heads = x.astype(np.float64).reshape(len(x), shape.heads, shape.head_size)
    length = np.maximum(np.linalg.norm(heads, axis=-1, keepdims=True), 1e-12)
    normalised: Floats = (heads / length).reshape(x.shape).astype(np.float32)
    return normalised


def _sigmoid(x: Floats) -> Floats:
    with np.errstate(over="ignore"):  # exp overflows to infinity, whose reciprocal is the limit
        result: Floats = np.float32(1) / (np.float32(1) + np.exp(-x))
    return result
