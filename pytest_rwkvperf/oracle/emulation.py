"""Emulates engines that quantize while loading: the weights after quantization and dequantization.

web-rwkv stores a matrix as blocks of consecutive values, row after row, each with its own float16 bounds. In each layer
asked for it quantizes six matrices: receptance, key, value and output of the time mixing, key and value of the channel
mixing. Embedding, head and the low-rank matrices stay float16 (crate web-rwkv 0.10.20, `src/runtime/v7.rs`, `build_v7`;
its halving of `output` and `value` every 1024 layers, `DEFAULT_RESCALE`, applies to no model). Its arithmetic is
float32 on float16 values (`src/runtime/loader.rs`, `load_matrix`), as it is here.
"""

from __future__ import annotations

import re
from functools import cache
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pytest_rwkvperf.core.errors import BackendError
from pytest_rwkvperf.models.weights import cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.shapes import TensorSpec
    from pytest_rwkvperf.models.weights import Array, Weights

Floats = npt.NDArray[np.float32]

INT8_BLOCK = 128
"""Values that share a minimum and a maximum: `src/tensor/ops.rs`, `INT8_BLOCK_SIZE`."""

FLOAT4_BLOCK = 64
"""Values that share a largest magnitude: `src/tensor/ops.rs`, `NF4_BLOCK_SIZE`."""

NF4_LEVELS = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
        0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
"""`src/tensor/matrix.rs`, `Float4Quant::new`; the NF4 of QLoRA (arXiv 2305.14314, appendix E)."""

_SF4_FREEDOM = 5.0  # `src/runtime/loader.rs`: quant_sf4(&buffer, 5.0)
_MATRIX = re.compile(r"blocks\.(\d+)\.(att\.(receptance|key|value|output)|ffn\.(key|value))\.weight")
_NAME = re.compile(r"web-rwkv:(int8|nf4|sf4)(?:@(\d+))?")


def applied(weights: Weights, emulation: str) -> Weights:
    """Weights as an engine computes with them.

    Args:
        weights: the file's.
        emulation: `web-rwkv:QUANT` with int8, nf4 or sf4, optionally with the number of first layers that are
            quantized (`web-rwkv:int8@31`); empty for unchanged weights.

    Raises:
        BackendError: no such emulation is known.
    """
    if not emulation:
        return weights
    match = _NAME.fullmatch(emulation)
    if match is None:
        raise BackendError(
            f"the oracle knows no emulation {emulation!r}; it has web-rwkv:int8, web-rwkv:nf4 and web-rwkv:sf4, each"
            " optionally with a number of layers such as @31 (a backend that changes no weights has an empty one)"
        )
    layers = weights.shape.layers if match[2] is None else int(match[2])
    return BlockQuantized(weights, *_FORMATS[match[1]], layers)


class BlockQuantized:
    """Weights whose matrices in the first layers are quantized in blocks and dequantized again."""

    def __init__(self, weights: Weights, block: int, through: Callable[[Floats], Floats], layers: int) -> None:
        self.shape = weights.shape
        self.precision: Precision = "f32"
        self._weights = weights
        self._block = block
        self._through = through
        self._layers = layers

    def rows(self, spec: TensorSpec, start: int, stop: int, precision: Precision | None = None) -> Array:
        """See `Weights.rows`. Where blocks span rows, whole groups of rows that start and end with a block are read."""
        matrix = _MATRIX.fullmatch(spec.name)
        if matrix is None or int(matrix[1]) >= self._layers:
            return self._weights.rows(spec, start, stop, precision)
        group = self._block // gcd(spec.row_size, self._block)
        first, last = start - start % group, min(spec.rows, stop + -stop % group)
        held: Floats = self._weights.rows(spec, first, last, "f16").astype(np.float32).reshape(-1)
        values = self._blocks(held).reshape(last - first, spec.row_size)[start - first : stop - first]
        return values if precision is None else cast(values, precision, spec.name)

    def _blocks(self, values: Floats) -> Floats:
        """All values through the format. A shorter last block is padded with its last value, which changes no bound."""
        padded = np.pad(values, (0, -len(values) % self._block), mode="edge")
        return self._through(padded.reshape(-1, self._block)).reshape(-1)[: len(values)]


def through_int8(blocks: Floats) -> Floats:
    """INT8, bytes between each block's minimum and maximum: [blocks, INT8_BLOCK] after dequantization.

    `src/shaders/quant_mat_int8.wgsl` and `matmul_mat_int8.wgsl`: x = saturate((v - min) / (max - min)), kept as
    round(255·x), read as min + (max - min)·byte/255. WGSL rounds halves up (`pack4x8unorm`), but naga hands it to the
    driver as `PackUnorm4x8`, which leaves it open; Mesa's llvmpipe rounds to even (measured), and so does this.
    """
    low, high = blocks.min(axis=1, keepdims=True), blocks.max(axis=1, keepdims=True)
    span = high - low
    share = (blocks - low) / np.where(span == 0, np.float32(1), span)
    steps = np.rint(np.float32(255) * share)
    restored: Floats = low + span * (steps / np.float32(255))
    return restored


def through_nf4(blocks: Floats) -> Floats:
    """NF4: [blocks, FLOAT4_BLOCK] after dequantization."""
    return _through_levels(blocks, NF4_LEVELS)


def through_sf4(blocks: Floats) -> Floats:
    """SF4: [blocks, FLOAT4_BLOCK] after dequantization."""
    return _through_levels(blocks, sf4_levels())


@cache
def sf4_levels() -> Floats:
    """Quantiles of Student's t with 5 degrees of freedom over the largest: `src/tensor/matrix.rs`, `quantile_student`.

    The idea is Dotzel et al.'s, "Learning from Students" (arXiv 2405.03103).
    """
    from scipy.special import stdtrit

    edge = (1 / 32 + 1 / 30) / 2
    lower = edge + (0.5 - edge) / 7 * np.arange(7)
    upper = 0.5 + (0.5 - edge) / 8 * np.arange(9)
    quantiles = stdtrit(_SF4_FREEDOM, np.concatenate([lower, upper]))
    levels: Floats = (quantiles / quantiles.max()).astype(np.float32)
    return levels


def _through_levels(blocks: Floats, levels: Floats) -> Floats:
    """The level nearest to each value over its block's largest magnitude; of two equally near, the higher.

    `src/shaders/quant_mat_nf4.wgsl` and `matmul_mat_nf4.wgsl`.
    """
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    scaled = blocks * (np.float32(1) / np.where(largest == 0, np.float32(1), largest))
    halfway = (levels[1:] + levels[:-1]) / np.float32(2)
    restored: Floats = levels[np.searchsorted(halfway, scaled, side="right")] * largest
    return restored


_FORMATS: dict[str, tuple[int, Callable[[Floats], Floats]]] = {
    "int8": (INT8_BLOCK, through_int8),
    "nf4": (FLOAT4_BLOCK, through_nf4),
    "sf4": (FLOAT4_BLOCK, through_sf4),
}
