"""How each format stores the canonical tensors, as data: one table read in both directions.

Writers walk the table and ask the weights for blocks; readers walk it and show the stored arrays as canonical views.
Sources: web-rwkv 0.10 `runtime/loader.rs` and `runtime/v7.rs` for `.st`; llama.cpp `conversion/rwkv.py`, class
`Rwkv7Model`, and `conversion/base.py`, `prepare_tensors` for `.gguf`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Literal

import numpy as np

from pytest_rwkvperf.models.shapes import LERP_NAMES, Shape, TensorSpec, tensor_specs
from pytest_rwkvperf.models.streams import in_order
from pytest_rwkvperf.models.weights import DTYPES, Array, Weights, bytes_of, precision_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pytest_rwkvperf.models.model import Precision

Layout = Literal["plain", "transposed", "stacked"]


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor as a file holds it: its name, shape and precision there, and the canonical tensors it is made of.

    `plain` keeps the order of values (the shape may differ), `transposed` swaps a matrix's axes, `stacked` joins
    vectors along a new first axis. A placeholder is written because the format demands it and never read back.
    """

    name: str
    shape: tuple[int, ...]
    precision: Precision
    parts: tuple[TensorSpec, ...]
    layout: Layout = "plain"
    placeholder: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the stored values."""
        return prod(self.shape) * DTYPES[self.precision].itemsize

    def tasks(self, weights: Weights) -> Iterator[Callable[[], Array]]:
        """Its values in stored order and precision, as calls that each give one block."""
        if self.layout == "plain":
            for start, stop in self.parts[0].blocks():
                yield partial(weights.rows, self.parts[0], start, stop, self.precision)
        else:  # both are small: LoRA matrices and vectors
            yield partial(self._whole, weights)

    def _whole(self, weights: Weights) -> Array:
        parts = [weights.rows(spec, 0, spec.rows, self.precision) for spec in self.parts]
        if self.layout == "transposed":
            return np.ascontiguousarray(parts[0].T)
        return np.stack([part.reshape(-1) for part in parts])

    def canonical(self, data: Array) -> Iterator[tuple[TensorSpec, Array]]:
        """The canonical tensors in stored values, as views."""
        if self.placeholder:
            return
        if self.layout == "transposed":
            yield self.parts[0], data.reshape(self.shape).T
        else:
            rows = data.reshape(len(self.parts), -1)
            for spec, row in zip(self.parts, rows, strict=True):
                yield spec, row.reshape(spec.shape)


LORA_MATRIX = re.compile(r"\.att\.[wavg][12]$")
"""Canonical names of the low-rank matrices."""


def pth_layout(shape: Shape, precision: Precision) -> tuple[Stored, ...]:
    """The canonical layout itself, in one precision: `bf16` as published."""
    return tuple(Stored(spec.name, spec.shape, precision, (spec,)) for spec in tensor_specs(shape))


def pth_layout_of(weights: Weights) -> tuple[Stored, ...]:
    """The canonical layout, each tensor in the precision it is held in, so that any source is kept exactly."""
    return tuple(
        Stored(spec.name, spec.shape, precision_of(weights, spec), (spec,)) for spec in tensor_specs(weights.shape)
    )


def st_layout(shape: Shape) -> tuple[Stored, ...]:
    """web-rwkv's layout: canonical names, everything float16, low-rank matrices transposed."""
    return tuple(_st_tensor(spec) for spec in tensor_specs(shape))


def _st_tensor(spec: TensorSpec) -> Stored:
    if LORA_MATRIX.search(spec.name):
        return Stored(spec.name, spec.shape[::-1], "f16", (spec,), "transposed")
    return Stored(spec.name, spec.shape, "f16", (spec,))


_GGUF_NAMES: Mapping[str, str] = {
    "emb": "token_embd",
    "blocks.0.ln0": "token_embd_norm",
    "ln_out": "output_norm",
    "head": "output",
    "ln1": "attn_norm",
    "ln2": "attn_norm_2",
    "att.ln_x": "time_mix_ln",
    "ffn.x_k": "channel_mix_lerp_k",
    "ffn.key": "channel_mix_key",
    "ffn.value": "channel_mix_value",
}


def gguf_name(canonical: str) -> str:
    """llama.cpp's name of a canonical tensor, the six attention lerps apart (they are stacked)."""
    stem, _, suffix = canonical.rpartition(".")
    if suffix not in {"weight", "bias"}:
        stem, suffix = canonical, "weight"
    if stem in _GGUF_NAMES:
        return f"{_GGUF_NAMES[stem]}.{suffix}"
    _, layer, rest = stem.split(".", 2)
    name = _GGUF_NAMES.get(rest) or "time_mix_" + rest.removeprefix("att.")
    return f"blk.{layer}.{name}.{suffix}"


def gguf_layout(shape: Shape, precision: Precision = "f16") -> tuple[Stored, ...]:
    """llama.cpp's layout of its `F16`, `BF16` and `F32` file types, which name the precision of the matrices.

    Vectors are float32; so are `time_mix_w1` and `time_mix_w2`, whose names the converter shares with RWKV-6 tensors
    that must be. Layer 0's `v0`, `v1`, `v2` are placeholders: copies of `a0`, `a1`, `a2`, as the converter writes them.
    """
    stored = []
    for spec in tensor_specs(shape):
        stem, _, leaf = spec.name.rpartition(".")
        if leaf == LERP_NAMES[0]:
            lerps = tuple(TensorSpec(f"{stem}.{name}", spec.shape) for name in LERP_NAMES)
            name = gguf_name(f"{stem}.lerp_fused")
            stored.append(Stored(name, (len(lerps), 1, 1, shape.width), "f32", lerps, "stacked"))
        elif leaf not in LERP_NAMES or ".ffn." in spec.name:
            stored.append(_gguf_tensor(spec, precision))
            if re.fullmatch(r"blocks\.0\.att\.a[012]", spec.name):
                stored.append(_gguf_placeholder(stored[-1]))
    return tuple(stored)


def _gguf_tensor(spec: TensorSpec, precision: Precision) -> Stored:
    name = gguf_name(spec.name)
    if LORA_MATRIX.search(spec.name):
        kind: Precision = "f32" if re.search(r"\.w[12]$", spec.name) else precision
        return Stored(name, spec.shape[::-1], kind, (spec,), "transposed")
    if spec.name.endswith(".r_k") or spec.rows == 1:
        return Stored(name, (spec.size,), "f32", (spec,))
    return Stored(name, spec.shape, precision, (spec,))


def _gguf_placeholder(original: Stored) -> Stored:
    name = original.name.replace("time_mix_a", "time_mix_v")
    return Stored(name, original.shape, original.precision, original.parts, original.layout, placeholder=True)


def canonical_tensors(layout: tuple[Stored, ...], stored: Mapping[str, Array]) -> dict[str, Array]:
    """Canonical views, by name, of a file's stored arrays."""
    return {spec.name: view for entry in layout for spec, view in entry.canonical(stored[entry.name])}


def stored_blocks(layout: tuple[Stored, ...], weights: Weights) -> Iterator[tuple[Stored, memoryview]]:
    """Each stored tensor's bytes in blocks of bounded size, with the tensor they belong to."""
    pieces = [(entry, task) for entry in layout for task in entry.tasks(weights)]
    blocks = in_order(_bytes_of(task) for _, task in pieces)
    for (entry, _), block in zip(pieces, blocks, strict=True):
        yield entry, block


def _bytes_of(task: Callable[[], Array]) -> Callable[[], memoryview]:
    return lambda: bytes_of(task())
