"""The content hash: one SHA-256 over a model's canonical tensors, the same whichever format holds the numbers.

Each row block's exact values are digested in the narrower of two little-endian forms: the upper halves of the float32
values where all lower halves are zero (every bfloat16 value; float16 values of eight significant bits), else the whole
float32 values, with a tag that says which. The digests of a tensor's blocks follow its name and shape, tensors follow
each other in canonical order. The form depends on the values alone, so bf16, f16 and f32 files of one model agree.
"""

from __future__ import annotations

import hashlib
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pytest_rwkvperf.models.model import PRECISIONS
from pytest_rwkvperf.models.shapes import TensorSpec, tensor_specs
from pytest_rwkvperf.models.streams import Progress, Ticker, in_order
from pytest_rwkvperf.models.weights import DTYPES, Array, Weights, bytes_of, check_finite

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_rwkvperf.models.header import TensorEntry

_DOMAIN = b"rwkv7 canonical tensors v1\n"
_RAW_DOMAIN = b"gguf stored tensors v1\n"
_UPPER, _FULL = b"u", b"f"


def content_hash(weights: Weights, progress: Progress, sentence: str) -> str:
    """SHA-256 in hex over the canonical tensors. `progress` gets `sentence` and the fraction done.

    Raises:
        ModelError: a tensor holds NaN or infinity.
    """
    specs = tensor_specs(weights.shape)
    ticker = Ticker(progress, sentence, sum(spec.size for spec in specs))
    pieces = [(spec, start, stop) for spec in specs for start, stop in spec.blocks()]
    digests = in_order(partial(_block_digest, weights, *piece) for piece in pieces)
    whole = hashlib.sha256(_DOMAIN)
    for (spec, start, stop), digest in zip(pieces, digests, strict=True):
        if start == 0:
            whole.update(f"{spec.name} {spec.shape}\n".encode())
        whole.update(digest)
        ticker.add((stop - start) * spec.row_size)
    return whole.hexdigest()


def stored_hash(tensors: Iterable[tuple[TensorEntry, Array]], progress: Progress, sentence: str) -> str:
    """SHA-256 in hex over the tensors' stored bytes, in any order, for quantized `.gguf` files.

    Raises:
        ModelError: a tensor that is not in a block format holds NaN or infinity.
    """
    ordered = sorted(tensors, key=lambda pair: pair[0].name)
    ticker = Ticker(progress, sentence, sum(entry.nbytes for entry, _ in ordered))
    digests = in_order(partial(_raw_digest, entry, data) for entry, data in ordered)
    whole = hashlib.sha256(_RAW_DOMAIN)
    for (entry, _), digest in zip(ordered, digests, strict=True):
        whole.update(f"{entry.name} {entry.kind.upper()} {entry.shape}\n".encode() + digest)
        ticker.add(entry.nbytes)
    return whole.hexdigest()


def _raw_digest(entry: TensorEntry, data: Array) -> bytes:
    if entry.kind in PRECISIONS:
        check_finite(entry.array(data), entry.name)
    return hashlib.sha256(bytes_of(data)).digest()


def _block_digest(weights: Weights, spec: TensorSpec, start: int, stop: int) -> bytes:
    values = weights.rows(spec, start, stop)
    check_finite(values, spec.name)
    tag, bits = _canonical(values)
    digest = hashlib.sha256(tag)
    digest.update(bytes_of(bits))
    return digest.digest()


def _canonical(values: Array) -> tuple[bytes, npt.NDArray[np.uint16] | npt.NDArray[np.uint32]]:
    """The bits to hash: the upper halves of the float32 values where the lower halves are zero, else all."""
    if values.dtype == DTYPES["bf16"]:
        return _UPPER, np.ascontiguousarray(values).view("<u2")
    if values.dtype == DTYPES["f16"]:
        half = np.ascontiguousarray(values).view("<u2")
        if not (half & 0x0007).any():  # at most eight significant bits, so bfloat16 holds the value
            return _UPPER, _upper_of_half().take(half)
    full = np.ascontiguousarray(values.astype(DTYPES["f32"], copy=False)).view("<u4")
    if not (full & 0xFFFF).any():
        return _UPPER, (full >> 16).astype("<u2")
    return _FULL, full


@cache
def _upper_of_half() -> npt.NDArray[np.uint16]:
    every = np.arange(65536, dtype="<u2").view(DTYPES["f16"]).astype(DTYPES["f32"]).view("<u4")
    return (every >> 16).astype("<u2")
