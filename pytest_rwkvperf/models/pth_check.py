"""Checks of a `.pth` that is not trusted: its zip's directory, its pickle's opcodes, torch's `weights_only` loader.

A worker runs all three before the rwkv package loads the file in its own way. The worker may run in another
environment, so only the standard library is imported and, to load, the engine's own torch.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
import zipfile
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import pth_pickle
from pytest_rwkvperf.models.model import errors_naming
from pytest_rwkvperf.models.shapes import Shape, is_unused, shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.pth_pickle import StoredTensor

_AGAIN = "download it again from a place that you trust"
_LITTLE = b"little"
_ITEM_BYTES: Mapping[Precision, int] = {"bf16": 2, "f16": 2, "f32": 4}
_ENTRY = re.compile(
    r"[^/\\]+/(data\.pkl|data/\d{1,6}|byteorder|version|\.format_version|\.storage_alignment|\.data/serialization_id)"
)
_END_OF_DIRECTORY = b"PK\x05\x06"
_END_BYTES = 22


def check_directory(path: Path) -> None:
    """Check the zip's directory: complete, torch's layout, nothing compressed.

    Raises:
        ModelError: names the file and the reason.
    """
    with errors_naming(path):
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
        # Zip readers search for the directory in different ways; after this check there is only one place for it.
        if not end.startswith(_END_OF_DIRECTORY) or not end.endswith(b"\0\0"):
            raise ModelError(f"bytes follow its zip directory, which torch.save never writes; {_AGAIN}")


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    names = [entry.filename for entry in entries]
    if not any(name.count("/") == 1 and name.endswith("/data.pkl") for name in names):
        raise ModelError("it is a zip, but not one that torch.save wrote (no data.pkl); name a .pth file")
    stored = sum(entry.file_size for entry in entries)
    packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed or stored > size or any(entry.compress_size != entry.file_size for entry in entries):
        raise ModelError(
            f"it unpacks to {stored} bytes from {size};"
            " torch.save stores weights uncompressed, so this is not a model file"
        )
    for entry in entries:
        if not _ENTRY.fullmatch(entry.orig_filename) or entry.flag_bits & 1:
            raise ModelError(
                f"it has an entry {entry.orig_filename!r}, which torch.save never writes; it is not loaded"
            )
    if len({name.split("/")[0] for name in names}) != 1 or len(set(names)) != len(names):
        raise ModelError(
            f"its zip directory names several folders, or one entry twice, which torch.save never does; {_AGAIN}"
        )
    starts = sorted(entry.header_offset for entry in entries)
    if starts[0] != 0:
        raise ModelError(f"{starts[0]} bytes precede its first entry, which torch.save never does; {_AGAIN}")


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """A `.pth` file's tensors by name, from its zip directory and its pickle's opcodes. Nothing is unpickled.

    Raises:
        ModelError: it is anything but a complete dictionary of tensors; names the file and the reason.
    """
    check_directory(path)
    with errors_naming(path):
        try:
            with zipfile.ZipFile(path) as archive:
                sizes = {entry.filename.partition("/")[2]: entry.file_size for entry in archive.infolist()}
                pickled, order = _pickle_and_byte_order(archive, sizes)
        except (zipfile.BadZipFile, OSError, EOFError, struct.error) as error:
            raise ModelError(f"its pickle cannot be read ({error}); it is damaged") from None
        if order != _LITTLE:
            raise ModelError("its values are not stored little-endian; save it again on the machine that measures")
        tensors = pth_pickle.tensors(pickled)
        for name, tensor in tensors.items():
            needed = tensor.count * _ITEM_BYTES[tensor.precision]
            if sizes.get(f"data/{tensor.storage}", -1) < needed:
                raise ModelError(f"tensor {name!r} needs {needed} bytes of an entry that has less; it is damaged")
    return tensors


def _pickle_and_byte_order(archive: zipfile.ZipFile, sizes: Mapping[str, int]) -> tuple[bytes, bytes]:
    """The bytes of the entries `data.pkl` and `byteorder`; an entry that is too large is not read."""
    folder = archive.namelist()[0].split("/")[0]
    if sizes["data.pkl"] > pth_pickle.MAX_PICKLE_BYTES:
        raise ModelError(f"its pickle has {sizes['data.pkl']} bytes, more than any model's")
    absent = sizes.get("byteorder", 0) == 0  # files from before torch 2.1 have none
    whole = sizes.get("byteorder", 0) <= len(_LITTLE)
    order = _LITTLE if absent else archive.read(f"{folder}/byteorder") if whole else b"?"
    return archive.read(f"{folder}/data.pkl"), order


def load(path: Path) -> tuple[Shape, dict[str, tuple[Any, Precision]]]:
    """The model's shape, and torch's tensors by name with their precisions. Imports torch, so for workers only.

    Raises:
        ModelError: names the file and the reason.
    """
    stored = {name: tensor for name, tensor in stored_tensors(path).items() if not is_unused(name)}
    with errors_naming(path):
        shape = shape_of({name: tensor.shape for name, tensor in stored.items()})
        loaded = {name: (tensor, precision) for name, tensor, precision in _load(path)}
        shapes = {name: tuple(tensor.shape) for name, (tensor, _) in loaded.items()}
        if shapes != {name: tensor.shape for name, tensor in stored.items()}:
            raise ModelError("torch finds other tensors in it than its pickle describes; it is not used")
    return shape, loaded


def _load(path: Path) -> Iterator[tuple[str, Any, Precision]]:
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
            yield name, tensor.detach(), kinds[tensor.dtype]
