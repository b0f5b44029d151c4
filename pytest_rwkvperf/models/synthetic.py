"""Synthetic weights: the same numbers on every machine, with every NumPy, in every format.

A value depends only on the seed, the tensor's canonical name and its index. Philox-4x64-10 (Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3", SC'11), whose raw stream NumPy guarantees (NEP 19), gives one byte
per value; an integer formula turns the byte into k·2^-e with |k| ≤ 255, which float16, bfloat16 and float32 all hold
exactly. No floating-point arithmetic is involved that could differ between machines.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.core.text import did_you_mean
from pytest_rwkvperf.models.shapes import SHAPES, Shape, TensorSpec
from pytest_rwkvperf.models.weights import DTYPES, Array

if TYPE_CHECKING:
    from pytest_rwkvperf.models.model import Precision

GENERATOR_VERSION = 1
"""Part of every random key and cached hash: raise it when a range changes, so that old cached files are not used."""

PREFIX = "synthetic:"
_BYTES_PER_COUNTER = 32  # one Philox-4x64 counter step gives four 64-bit words
_LARGEST = 255  # eight significant bits, what bfloat16 has
_SMALLEST_EXPONENT = 24  # 2^-24 is float16's smallest positive value


@dataclass(frozen=True, slots=True)
class Range:
    """Uniform values k·2^-exponent for integers `low` ≤ k ≤ `high`."""

    low: int
    high: int
    exponent: int

    def __post_init__(self) -> None:
        if not -_LARGEST <= self.low <= self.high <= _LARGEST or not 0 <= self.exponent <= _SMALLEST_EXPONENT:
            raise ValueError(f"{self} is not on the grid that float16 and bfloat16 share")

    def integers(self) -> npt.NDArray[np.int64]:
        """The k of each of the 256 bytes: `low` + byte·(high - low)/255, rounded half up."""
        byte = np.arange(256, dtype=np.int64)
        return self.low + (2 * byte * (self.high - self.low) + 255) // 510


def _spread(fan: int, quarters: int) -> Range:
    """A symmetric range of standard deviation (quarters/4)/√fan, that is ±(quarters/4)·√3/√fan, on the finest grid."""
    for exponent in range(_SMALLEST_EXPONENT, -1, -1):
        largest = isqrt(3 * quarters * quarters * 4**exponent // (16 * fan))
        if largest <= _LARGEST:
            return Range(-largest, largest, exponent)
    raise ValueError(f"spread {quarters}/4/sqrt({fan}) does not fit the grid")


_UNIT = Range(0, 255, 8)  # token-shift mixing: from the current token to the previous one
_NEAR_ONE = Range(96, 160, 7)  # 0.75 … 1.25: norms' weights and k_a
_NEAR_ZERO = Range(-16, 16, 7)  # ±0.125: norms' biases
_LOGIT = Range(-128, 128, 7)  # ±1: what a0 and v0 add before a sigmoid
_VECTORS = {
    "w0": Range(-192, -32, 5),  # -6 … -1: decays of 0.9985 … 0.85 a token (decay = exp(-0.606531·sigmoid(w)))
    "a0": _LOGIT,
    "v0": _LOGIT,
    "k_k": Range(90, 128, 7),  # 0.70 … 1.0, around the 0.85 that training starts from
    "k_a": _NEAR_ONE,
    "r_k": Range(-255, 255, 7),  # ±2
}
# Standard deviation of each matrix in quarters of 1/√fan-in. Inputs are layer-normed, so 2 gives outputs of 0.5: the
# residual stream grows by about 0.1 in variance per layer and stays far inside float16 at 61 layers. Exceptions: w1 and
# w2 move the decay enough to show in the logits; receptance and value keep what enters the group norm so small that its
# epsilon shows; g2 turns sigmoids around one half into gates of about 0.5; head gives logits one of about 2.
_MATRIX_QUARTERS = {"w1": 4, "w2": 8, "receptance": 1, "value": 1, "g2": 4, "head": 8}


@cache
def value_range(spec: TensorSpec) -> Range:
    """The range of a tensor's values."""
    parts = spec.name.split(".")
    leaf = parts[-2] if parts[-1] in {"weight", "bias"} else parts[-1]
    if leaf == "emb":
        return Range(-128, 128, 8)  # ±0.5; ln0 normalizes it
    if leaf.startswith("ln"):
        return _NEAR_ONE if parts[-1] == "weight" else _NEAR_ZERO
    if leaf.startswith("x_"):
        return _UNIT
    if leaf in _VECTORS:
        return _VECTORS[leaf]
    # The low-rank pairs are stored input-first, the other matrices output-first.
    fan = spec.shape[0] if re.fullmatch(r"[wavg][12]", leaf) else spec.shape[1]
    quarters = 2 if ".ffn." in spec.name else _MATRIX_QUARTERS.get(leaf, 2)
    return _spread(fan, quarters)


@cache
def _pairs(values: Range, precision: Precision) -> Array:
    """A table from two neighbouring bytes to two neighbouring values: half as many look-ups, twice the speed."""
    table = np.ldexp(values.integers().astype(np.float64), -values.exponent).astype(DTYPES[precision])
    both = np.empty((256, 256, 2), table.dtype)
    both[:, :, 0] = table[None, :]  # the lower byte comes first, as in the little-endian stream
    both[:, :, 1] = table[:, None]
    return both.reshape(65536, 2).view(np.dtype(f"u{2 * table.itemsize}")).reshape(65536)


@dataclass(frozen=True, slots=True)
class SyntheticModel:
    """Weights made from a shape and a seed; `label` is the part of the reference after `synthetic:`."""

    label: str
    shape: Shape
    seed: int = 0

    @property
    def precision(self) -> Precision:
        """bfloat16, as in the public `.pth` files; the grid is exact in all three precisions."""
        return "bf16"

    def rows(self, spec: TensorSpec, start: int, stop: int, precision: Precision | None = None) -> Array:
        """Rows of one tensor, computed from their index alone. See `weights.Weights.rows`."""
        first, count = start * spec.row_size, (stop - start) * spec.row_size
        counter, skip = divmod(first, _BYTES_PER_COUNTER)
        words = -(-(skip + count) // 8)
        raw = np.random.Philox(key=self._key(spec.name), counter=counter).random_raw(words)
        pairs = raw.astype("<u8", copy=False).view("<u2")
        kind = precision or self.precision
        values = _pairs(value_range(spec), kind).take(pairs).view(DTYPES[kind])
        return values[skip : skip + count].reshape(stop - start, spec.row_size)

    def _key(self, name: str) -> int:
        text = f"pytest-rwkvperf synthetic {GENERATOR_VERSION} {self.seed} {name}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def parse(reference: str) -> SyntheticModel:
    """Read `synthetic:SHAPE` or `synthetic:SHAPE:SEED`.

    Raises:
        ModelError: the shape is unknown or the seed is not a whole number; the message names the allowed ones.
    """
    label = reference.removeprefix(PREFIX)
    name, _, seed = label.partition(":")
    if name not in SHAPES:
        meant = did_you_mean(name, SHAPES)
        raise ModelError(
            f"unknown synthetic shape {name!r} in {reference!r}{meant}; the shapes are {', '.join(SHAPES)}"
        )
    if (seed and not (seed.isascii() and seed.isdigit())) or label.endswith(":"):
        raise ModelError(f"seed {seed!r} in {reference!r} is not a whole number; write for example {PREFIX}{name}:7")
    number = int(seed or 0)
    return SyntheticModel(f"{name}:{number}" if number else name, SHAPES[name], number)
