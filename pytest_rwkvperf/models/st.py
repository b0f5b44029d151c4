"""web-rwkv's `.st`: safetensors, float16, low-rank matrices transposed.

The layout is a little-endian u64 header length, that many bytes of JSON, then the tensors without gaps
(https://github.com/huggingface/safetensors#format). The header is read here and not by the `safetensors` package so
that every number in it is checked against the file's size first, and bfloat16 maps without torch.
"""

from __future__ import annotations

import json
import struct
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_rwkvperf.errors import ModelError
from pytest_rwkvperf.models.convert import canonical_tensors, st_layout
from pytest_rwkvperf.models.shapes import Shape, shape_of
from pytest_rwkvperf.models.streams import Progress, Ticker
from pytest_rwkvperf.models.weights import DTYPES, Array, MappedWeights, Weights
from pytest_rwkvperf.models.writing import stored_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_rwkvperf.models.files import Precision

_PRECISIONS: Mapping[str, Precision] = {"F16": "f16", "BF16": "bf16", "F32": "f32"}
_ALIGNMENT = 64
_LARGEST_HEADER = 100_000_000  # the limit of the safetensors package itself


def size(shape: Shape) -> int:
    """Bytes of a `.st` file of this shape."""
    return len(_header(shape)) + sum(entry.nbytes for entry in st_layout(shape))


def write(path: Path, weights: Weights, progress: Progress, sentence: str) -> None:
    """Write a `.st` file, streamed."""
    layout = st_layout(weights.shape)
    ticker = Ticker(progress, sentence, sum(entry.nbytes for entry in layout))
    with path.open("wb") as file:
        file.write(_header(weights.shape))
        for _, data in stored_blocks(layout, weights):
            file.write(data)
            ticker.add(len(data))


def _header(shape: Shape) -> bytes:
    entries, offset = {}, 0
    for entry in st_layout(shape):
        entries[entry.name] = {
            "dtype": "F16",
            "shape": entry.shape,
            "data_offsets": [offset, offset + entry.nbytes],
        }
        offset += entry.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)  # spaces are the format's own padding
    return struct.pack("<Q", len(text)) + text


def read(path: Path) -> MappedWeights:
    """Check the header and map the tensors; no tensor is read yet.

    Raises:
        ModelError: truncated, malformed or not RWKV-7; names the file and the reason.
    """
    try:
        return _read(path)
    except ModelError as error:
        raise ModelError(f"cannot use {str(path)!r}: {error}") from None


def _read(path: Path) -> MappedWeights:
    start, entries = _entries(path)
    data = np.memmap(path, np.uint8, "r", offset=start) if path.stat().st_size > start else np.empty(0, np.uint8)
    stored: dict[str, Array] = {}
    kinds: set[Precision] = set()
    for name, entry in entries.items():
        kind, dims, begin, end = _tensor(name, entry, data.nbytes)
        stored[name] = data[begin:end].view(DTYPES[kind]).reshape(dims)
        kinds.add(kind)
    shape = shape_of(_canonical_shapes({name: array.shape for name, array in stored.items()}))
    precision = kinds.pop() if len(kinds) == 1 else "f32"
    return MappedWeights(shape, precision, canonical_tensors(st_layout(shape), stored))


def _entries(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the tensors begin, and the header's entries."""
    total = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0  # noqa: PLR2004 - a u64
        if not 2 <= length <= min(total - 8, _LARGEST_HEADER):  # noqa: PLR2004 - "{}" at least
            raise ModelError(
                f"its header is said to have {length} bytes, the file has {total}; it is truncated or no .st"
            )
        text = file.read(length)
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"its header is not JSON ({error}); it is damaged or no .st") from None
    if not isinstance(entries, dict):
        raise ModelError("its header is not a JSON object; it is damaged or no .st")
    entries.pop("__metadata__", None)
    return 8 + length, entries


def _tensor(name: str, entry: object, available: int) -> tuple[Precision, tuple[int, ...], int, int]:
    """Precision, shape and byte range of one header entry, checked against the bytes that are there."""
    try:
        kind, dims, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        raise ModelError(f"its header's entry for {name!r} is malformed") from None
    if not isinstance(kind, str) or kind not in _PRECISIONS:
        raise ModelError(f"tensor {name!r} has type {kind!r}; RWKV-7 weights are {', '.join(_PRECISIONS)}")
    numbers = (*dims, begin, end)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ModelError(f"its header's entry for {name!r} is malformed")
    precision = _PRECISIONS[kind]
    if end - begin != prod(dims) * DTYPES[precision].itemsize:
        raise ModelError(f"tensor {name!r} of shape {list(dims)} cannot fill its {end - begin} bytes; it is damaged")
    if end > available:
        raise ModelError(f"tensor {name!r} ends at byte {end} of {available}; the file is truncated: download it again")
    return precision, dims, begin, end


def _canonical_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes with the low-rank matrices turned back; refuses a file that was converted without turning them.

    Width times rank and rank times width both make sense to a reader, and web-rwkv would compute nonsense.
    """
    embedding = shapes.get("emb.weight", ())
    lora = shapes.get("blocks.0.att.w1", ())
    if len(embedding) == len(lora) == 2 and lora[0] == embedding[1] != lora[1]:  # noqa: PLR2004 - matrices
        raise ModelError(
            "its low-rank matrices are not transposed ('blocks.0.att.w1' has shape"
            f" {list(lora)}, web-rwkv reads {list(lora[::-1])}); convert the .pth again with web-rwkv's converter"
        )
    turned = {name: dims[::-1] if _is_turned(name) else dims for name, dims in shapes.items()}
    return dict(turned)


def _is_turned(name: str) -> bool:
    stem, _, leaf = name.rpartition(".")
    return stem.endswith(".att") and leaf in {"w1", "w2", "a1", "a2", "g1", "g2", "v1", "v2"}
