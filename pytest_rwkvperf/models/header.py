"""A file's tensors as it stores them, from its header alone; a `.pth` is not unpickled for it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from pytest_rwkvperf.models import gguf, pth, st
from pytest_rwkvperf.models.model import Precision, errors_naming
from pytest_rwkvperf.models.shapes import is_unused, shape_of
from pytest_rwkvperf.models.weights import DTYPES

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.shapes import Shape


@dataclass(frozen=True, slots=True)
class ListedTensor:
    """One tensor under its name in the file. `kind` is a precision or a `.gguf` block format, in lower case."""

    name: str
    kind: str
    shape: tuple[int, ...]
    nbytes: int


def listing(path: Path, format: Format) -> list[ListedTensor]:  # noqa: A002 - the word everywhere
    """Every tensor, in the file's order.

    Raises:
        ModelError: the file cannot be used.
    """
    if format == "gguf":
        found = gguf.read(path).tensors.values()
        return [ListedTensor(one.name, one.kind.lower(), one.shape, one.nbytes) for one in found]
    if format == "st":
        return [
            ListedTensor(name, kind, shape, prod(shape) * DTYPES[kind].itemsize)
            for name, (kind, shape) in st.stored(path).items()
        ]
    return [
        ListedTensor(name, one.precision, one.shape, prod(one.shape) * DTYPES[one.precision].itemsize)
        for name, one in pth.stored_tensors(path).items()
    ]


def shape_and_precision(path: Path, format: Format) -> tuple[Shape, Precision]:  # noqa: A002
    """A file's shape and its matrices' precision, `f32` for a quantized one.

    Raises:
        ModelError: the file cannot be used.
    """
    if format == "gguf":
        file = gguf.read(path)
        return file.shape, gguf.PLAIN_TYPES.get(file.quant.upper(), "f32")
    if format == "st":
        weights = st.read(path)
        return weights.shape, weights.precision
    stored = {name: one for name, one in pth.stored_tensors(path).items() if not is_unused(name)}
    with errors_naming(path):
        shape = shape_of({name: one.shape for name, one in stored.items()})
    return shape, stored["blocks.0.ffn.key.weight"].precision
