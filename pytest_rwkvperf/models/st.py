"""web-rwkv's `.st`: safetensors, float16, low-rank matrices transposed.

The layout is a little-endian u64 header length, that many bytes of JSON, then the tensors without gaps
(https://github.com/huggingface/safetensors#format). The header is read here and not by the `safetensors` package so
that every number in it is checked against the file's size first, and bfloat16 maps without torch.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Annotated

import msgspec

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models.header import MappedHeader, TensorEntry, mapped
from pytest_rwkvperf.models.layouts import LORA_MATRIX, st_layout, stored_blocks
from pytest_rwkvperf.models.model import errors_naming
from pytest_rwkvperf.models.shapes import Shape, shape_of
from pytest_rwkvperf.models.streams import Progress, Ticker
from pytest_rwkvperf.models.weights import DTYPES, Weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_rwkvperf.models.model import Precision

_PRECISIONS: Mapping[str, Precision] = {"F16": "f16", "BF16": "bf16", "F32": "f32"}
_ALIGNMENT = 64
_HEADER_SHARE = 16
"""A header longer than 1/16 of its file is refused. RWKV-7's are 1/30 at the smallest width and 1/10 000 at 2.9b.
Decoding takes up to 8 times the header's length in memory, which this bounds by the file's size."""
_MAX_DIMENSIONS = 8
_Size = Annotated[int, msgspec.Meta(ge=0)]


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


def read_header(path: Path) -> MappedHeader:
    """Check the header; no tensor is read.

    Raises:
        ModelError: truncated, malformed or not RWKV-7; names the file and the reason.
    """
    with errors_naming(path):
        start, entries = _entries(path)
        available = path.stat().st_size - start
        tensors = {name: _tensor(name, entry, start, available) for name, entry in entries.items()}
        shape = shape_of(_canonical_shapes({name: tensor.shape for name, tensor in tensors.items()}))
        mapped(path)  # for its error, before anything depends on it
    kinds = {tensor.kind for tensor in tensors.values()}
    return MappedHeader(path, "st", shape, kinds.pop() if len(kinds) == 1 else "f32", tensors, st_layout(shape))


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tensor of the header; bytes are counted from the header's end."""

    dtype: str
    shape: list[_Size]
    data_offsets: tuple[_Size, _Size]


def _entries(path: Path) -> tuple[int, dict[str, _Entry]]:
    """Where the tensors begin, and the header's entries."""
    total = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0  # noqa: PLR2004 - a u64
        if not 2 <= length <= total // _HEADER_SHARE:  # noqa: PLR2004 - "{}" at least
            raise ModelError(
                f"its header claims {length} bytes, the file has {total}; it is truncated or not a .st of RWKV-7"
            )
        text = file.read(length)
    try:
        header = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        return 8 + length, {name: msgspec.json.decode(raw, type=_Entry) for name, raw in header.items()}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ModelError(f"its header cannot be read ({error}); it is damaged or not a .st") from None


def _tensor(name: str, entry: _Entry, base: int, available: int) -> TensorEntry:
    """One header entry, checked against the `available` bytes that follow the header, which ends at `base`."""
    precision = _PRECISIONS.get(entry.dtype)
    if precision is None:
        raise ModelError(f"tensor {name!r} has type {entry.dtype!r}; RWKV-7 weights are {', '.join(_PRECISIONS)}")
    if len(entry.shape) > _MAX_DIMENSIONS:
        raise ModelError(f"tensor {name!r} has {len(entry.shape)} dimensions; it is damaged")
    if 0 in entry.shape:  # the other dimensions could then have any size
        raise ModelError(f"tensor {name!r} has shape {entry.shape}; it is damaged")
    begin, end = entry.data_offsets
    if end - begin != prod(entry.shape) * DTYPES[precision].itemsize:
        raise ModelError(f"tensor {name!r} of shape {entry.shape} cannot fill its {end - begin} bytes; it is damaged")
    if end > available:
        raise ModelError(f"tensor {name!r} ends at byte {end} of {available}; the file is truncated: download it again")
    return TensorEntry(name, precision, tuple(entry.shape), base + begin, end - begin)


def _canonical_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes with the low-rank matrices transposed back to canonical orientation.

    A file that was converted without transposing them is refused: its shapes are plausible, so web-rwkv would load it
    and compute nonsense.
    """
    embedding = shapes.get("emb.weight", ())
    lora = shapes.get("blocks.0.att.w1", ())
    if len(embedding) == len(lora) == 2 and lora[0] == embedding[1] != lora[1]:  # noqa: PLR2004 - matrices
        raise ModelError(
            "its low-rank matrices are not transposed ('blocks.0.att.w1' has shape"
            f" {list(lora)}, web-rwkv reads {list(lora[::-1])}); convert the .pth again with web-rwkv's converter"
        )
    return {name: dims[::-1] if LORA_MATRIX.search(name) else dims for name, dims in shapes.items()}
