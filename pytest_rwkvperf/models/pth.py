"""BlinkDL's `.pth`: torch's zip of a pickle and one file per storage, as the `rwkv` package loads it.

Writing needs no torch: the zip comes from the standard library and the pickle is a fixed, minimal sequence of opcodes,
the ones torch's own `weights_only` loader allows. Reading goes in three steps, each only after the one before: the
zip's directory, the pickle's opcodes (`pickles`, which runs nothing), and torch's `weights_only` loader. `read` does
the third and runs in the worker; no other process unpickles.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
import zipfile
from itertools import groupby
from math import prod
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_rwkvperf.errors import ModelError
from pytest_rwkvperf.models import pickles
from pytest_rwkvperf.models.convert import Stored, pth_layout
from pytest_rwkvperf.models.files import about
from pytest_rwkvperf.models.shapes import Shape, is_unused, shape_of
from pytest_rwkvperf.models.streams import Progress, Ticker
from pytest_rwkvperf.models.weights import DTYPES, Array, MappedWeights, Weights
from pytest_rwkvperf.models.writing import stored_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pytest_rwkvperf.models.files import Precision
    from pytest_rwkvperf.models.pickles import StoredTensor

_FOLDER = "archive"  # torch's default name for the folder inside the zip
_ALIGNMENT = 64  # what torch.save aligns storages to, so that a memory map can be used as it is
_STORAGES: Mapping[Precision, str] = {"bf16": "BFloat16Storage", "f16": "HalfStorage", "f32": "FloatStorage"}
_LOCAL_HEADER = 30  # bytes of a zip's local file header before the name (APPNOTE.TXT, 4.3.7)
_LITTLE = b"little"
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


_ENTRY = re.compile(
    r"[^/\\]+/(data\.pkl|data/\d{1,6}|byteorder|version|\.format_version|\.storage_alignment|\.data/serialization_id)"
)
_END_OF_DIRECTORY = b"PK\x05\x06"
_END_BYTES = 22


def check_directory(path: Path) -> None:
    """Look at the zip's directory, without unpickling: complete, torch's layout, nothing compressed.

    Raises:
        ModelError: names the file and the reason.
    """
    with about(path):
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
            with path.open("rb") as file:
                file.seek(-_END_BYTES, io.SEEK_END)
                end = file.read()
        except (zipfile.BadZipFile, NotImplementedError, struct.error, OSError, ValueError) as error:
            raise ModelError(
                f"its zip directory cannot be read ({error}); it is truncated: download it again"
            ) from None
        _check_entries(entries, path.stat().st_size)
        # Readers of zip files look for the directory in different ways; here there is only one place where it can be.
        if not end.startswith(_END_OF_DIRECTORY) or not end.endswith(b"\0\0"):
            raise ModelError("bytes follow its zip directory, which torch.save never writes")


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    names = [entry.filename for entry in entries]
    if not any(name.count("/") == 1 and name.endswith("/data.pkl") for name in names):
        raise ModelError("it is a zip, but not one that torch.save wrote (no data.pkl)")
    stored = sum(entry.file_size for entry in entries)
    packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed or stored > size or any(entry.compress_size != entry.file_size for entry in entries):
        raise ModelError(
            f"it unpacks to {stored} bytes from {size};"
            " torch.save stores weights uncompressed, so this is no model file"
        )
    for entry in entries:
        if not _ENTRY.fullmatch(entry.orig_filename) or entry.flag_bits & 1:
            raise ModelError(
                f"it has an entry {entry.orig_filename!r}, which torch.save never writes; it is not loaded"
            )
    if len({name.split("/")[0] for name in names}) != 1 or len(set(names)) != len(names):
        raise ModelError("its zip directory names several folders, or one entry twice, which torch.save never does")
    starts = sorted(entry.header_offset for entry in entries)
    if starts[0] != 0:
        raise ModelError(f"{starts[0]} bytes precede its first entry, which torch.save never does")


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """A `.pth` file's tensors by name, from its zip directory and its pickle's opcodes. Nothing is unpickled.

    Raises:
        ModelError: the file does anything but hold tensors that are all there; names the file and the reason.
    """
    check_directory(path)
    with about(path):
        try:
            with zipfile.ZipFile(path) as archive:
                sizes = {entry.filename.partition("/")[2]: entry.file_size for entry in archive.infolist()}
                pickled, order = _small(archive, sizes)
        except (zipfile.BadZipFile, OSError, EOFError, struct.error) as error:
            raise ModelError(f"its pickle cannot be read ({error}); it is damaged") from None
        if order != _LITTLE:
            raise ModelError("its values are not stored little-endian; save it again on the machine that measures")
        found = pickles.tensors(pickled)
        for name, tensor in found.items():
            needed = tensor.count * DTYPES[tensor.precision].itemsize
            if sizes.get(f"data/{tensor.storage}", -1) < needed:
                raise ModelError(f"tensor {name!r} needs {needed} bytes of an entry that has less; it is damaged")
    return found


def _small(archive: zipfile.ZipFile, sizes: Mapping[str, int]) -> tuple[bytes, bytes]:
    """The pickle and the byte order; what is too large to be either is not read."""
    folder = archive.namelist()[0].split("/")[0]
    if sizes["data.pkl"] > pickles.LARGEST_PICKLE:
        raise ModelError(f"its pickle has {sizes['data.pkl']} bytes, more than any model's")
    absent = sizes.get("byteorder", 0) == 0  # files from before torch 2.1 have none
    whole = sizes.get("byteorder", 0) <= len(_LITTLE)
    order = _LITTLE if absent else archive.read(f"{folder}/byteorder") if whole else b"?"
    return archive.read(f"{folder}/data.pkl"), order


def read(path: Path) -> MappedWeights:
    """Map a `.pth` file's tensors. Runs in the worker: it imports torch, and unpickles through its allow-list.

    Raises:
        ModelError: names the file and the reason.
    """
    stored = {name: tensor for name, tensor in stored_tensors(path).items() if not is_unused(name)}
    with about(path):
        shape = shape_of({name: tensor.shape for name, tensor in stored.items()})
        tensors = dict(_load(path))
        if {name: array.shape for name, array in tensors.items()} != {name: one.shape for name, one in stored.items()}:
            raise ModelError("torch finds other tensors in it than its pickle describes; it is not used")
    matrices = tensors["blocks.0.ffn.key.weight"].dtype  # vectors may be wider
    precision = next(name for name, dtype in DTYPES.items() if dtype == matrices)
    return MappedWeights(shape, precision, tensors)


def _load(path: Path) -> Iterator[tuple[str, Array]]:
    import torch

    try:
        loaded = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"torch refuses to load it as weights: {reason}") from None
    if not isinstance(loaded, dict):
        raise ModelError(f"it holds a {type(loaded).__name__}, expected a dictionary of tensors")
    kinds: dict[Any, Precision] = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32"}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor) or tensor.dtype not in kinds:
            what = getattr(tensor, "dtype", type(tensor).__name__)
            raise ModelError(f"its entry {name!r} is {what}; RWKV-7 weights are bfloat16, float16 or float32 tensors")
        if not is_unused(name):
            yield name, _as_numpy(tensor.detach(), kinds[tensor.dtype])


def _as_numpy(tensor: Any, precision: Precision) -> Array:  # noqa: ANN401 - torch has no place in this process's types
    import torch

    if precision == "bf16":  # NumPy has no bfloat16 of its own: hand over the bits
        bits: Array = tensor.contiguous().view(torch.int16).numpy()
        return bits.view(DTYPES["bf16"])
    values: Array = np.asarray(tensor.contiguous().numpy())
    return values
