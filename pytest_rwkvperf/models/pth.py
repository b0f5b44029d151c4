"""BlinkDL's `.pth`: torch's zip of a pickle and one file per storage, as the `rwkv` package loads it.

Writing needs no torch: the zip comes from the standard library, and the pickle is a fixed, minimal sequence of opcodes
that torch's own `weights_only` loader allows. `read_header` checks the zip's directory and the pickle's opcodes
(`pth_check`, `pth_pickle`) and unpickles nothing. `read` unpickles with torch, after the same checks, and runs in
workers only.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from itertools import groupby
from math import prod
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_rwkvperf.models import pth_check
from pytest_rwkvperf.models.header import Header, TensorEntry
from pytest_rwkvperf.models.layouts import Stored, pth_layout, stored_blocks
from pytest_rwkvperf.models.model import errors_naming
from pytest_rwkvperf.models.shapes import Shape, is_unused, shape_of
from pytest_rwkvperf.models.streams import Progress, Ticker
from pytest_rwkvperf.models.weights import DTYPES, Array, MappedWeights, Weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_rwkvperf.models.model import Precision

_FOLDER = "archive"  # torch's default name for the folder inside the zip
_ALIGNMENT = 64  # what torch.save aligns storages to, so that a memory map can be used as it is
_STORAGES: Mapping[Precision, str] = {"bf16": "BFloat16Storage", "f16": "HalfStorage", "f32": "FloatStorage"}
_LOCAL_HEADER = 30  # bytes of a zip's local file header before the name (APPNOTE.TXT, 4.3.7)
_PADDING_FIELD = b"FB"  # the extra-field id that torch.save pads with


def size(shape: Shape, precision: Precision) -> int:
    """Bytes of a `.pth` file of this shape, to within the zip's directory."""
    layout = pth_layout(shape, precision)
    return sum(entry.nbytes + 512 for entry in layout)


def write(path: Path, weights: Weights, layout: tuple[Stored, ...], progress: Progress, sentence: str) -> None:
    """Write a `.pth` file, streamed: it loads with `torch.load(weights_only=True, mmap=True)` and with `rwkv`."""
    ticker = Ticker(progress, sentence, sum(entry.nbytes for entry in layout))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        _write_small(archive, "data.pkl", _pickle(layout))
        _write_small(archive, "byteorder", b"little")
        groups = groupby(stored_blocks(layout, weights), key=itemgetter(0))
        for number, (entry, stream) in enumerate(groups):
            with archive.open(_aligned(archive, f"data/{number}", entry.nbytes), "w") as file:
                for _, data in stream:
                    file.write(data)
                    ticker.add(len(data))
        _write_small(archive, "version", b"3\n")


def _write_small(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    with archive.open(_aligned(archive, name, len(data)), "w") as file:
        file.write(data)


def _aligned(archive: zipfile.ZipFile, name: str, nbytes: int) -> zipfile.ZipInfo:
    """A zip entry whose data will begin at a multiple of `_ALIGNMENT`, by an extra field of padding."""
    entry = zipfile.ZipInfo(f"{_FOLDER}/{name}")  # dated 1980-01-01: equal weights give equal files
    entry.file_size = nbytes
    entry.external_attr = 0o600 << 16
    at = archive.fp.tell() if archive.fp else 0
    padding = -(at + _LOCAL_HEADER + len(entry.filename) + 4) % _ALIGNMENT
    entry.extra = _PADDING_FIELD + struct.pack("<H", padding) + b"Z" * padding
    return entry


def _pickle(layout: tuple[Stored, ...]) -> bytes:
    """`{name: torch._utils._rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict()), …}`, protocol 2."""
    out = io.BytesIO()
    out.write(pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK)
    for number, entry in enumerate(layout):
        count = prod(entry.shape)
        out.write(_text(entry.name) + _global("torch._utils", "_rebuild_tensor_v2") + pickle.MARK)
        out.write(pickle.MARK + _text("storage") + _global("torch", _STORAGES[entry.precision]))
        out.write(_text(str(number)) + _text("cpu") + _integer(count) + pickle.TUPLE + pickle.BINPERSID)
        out.write(_integer(0) + _integers(entry.shape) + _integers(_strides(entry.shape)) + pickle.NEWFALSE)
        out.write(_global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE)
        out.write(pickle.TUPLE + pickle.REDUCE)
    out.write(pickle.SETITEMS + pickle.STOP)
    return out.getvalue()


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(value: str) -> bytes:
    data = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def _integer(value: int) -> bytes:
    return pickle.BININT + struct.pack("<i", value)


def _integers(values: tuple[int, ...]) -> bytes:
    return pickle.MARK + b"".join(map(_integer, values)) + pickle.TUPLE


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def read_header(path: Path) -> Header:
    """Check the zip's directory and the pickle's opcodes; nothing is unpickled.

    Raises:
        ModelError: names the file and the reason.
    """
    stored = pth_check.stored_tensors(path)
    with errors_naming(path):
        shape = shape_of({name: tensor.shape for name, tensor in stored.items() if not is_unused(name)})
    entries = {}
    for name, tensor in stored.items():
        width = DTYPES[tensor.precision].itemsize
        size = prod(tensor.shape) * width
        entries[name] = TensorEntry(name, tensor.precision, tensor.shape, tensor.offset * width, size)
    return Header(path, "pth", shape, stored["blocks.0.ffn.key.weight"].precision, entries)


def read(path: Path) -> MappedWeights:
    """Map the tensors with torch's `weights_only` loader. For workers only: it imports torch and unpickles.

    Raises:
        ModelError: names the file and the reason.
    """
    shape, loaded = pth_check.load(path)
    tensors = {name: _as_numpy(tensor, precision) for name, (tensor, precision) in loaded.items()}
    matrices = loaded["blocks.0.ffn.key.weight"][1]  # vectors may be wider
    return MappedWeights(shape, matrices, tensors)


def _as_numpy(tensor: Any, precision: Precision) -> Array:  # noqa: ANN401 - torch has no place in this process's types
    import torch

    if precision == "bf16":  # NumPy has no bfloat16 of its own: hand over the bits
        bits: Array = tensor.contiguous().view(torch.int16).numpy()
        return bits.view(DTYPES["bf16"])
    values: Array = np.asarray(tensor.contiguous().numpy())
    return values
