"""What a model file's header says: the shape, the quant and the list of tensors.

`file_format.read_header` reads one of any format, without reading a tensor and without unpickling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models.layouts import canonical_tensors
from pytest_rwkvperf.models.model import PRECISIONS, Precision
from pytest_rwkvperf.models.weights import DTYPES, Array, MappedWeights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.layouts import Stored
    from pytest_rwkvperf.models.shapes import Shape


def mapped(path: Path) -> Array:
    """A file's bytes, memory-mapped.

    Raises:
        ModelError: the file system maps no files, as some that are remote or in user space do not.
    """
    try:
        return np.memmap(path, np.uint8, "r")
    except OSError as error:
        raise ModelError(f"its file system cannot map it ({error.strerror}); copy it to a local disk") from error


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor under its name in the file.

    `kind` is a precision or a `.gguf` block format, in lower case; `shape` is in NumPy's order. `start` is the first
    byte's offset: in the file, or for a `.pth` in the tensor's storage.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    def array(self, data: Array) -> Array:
        """The bytes of an unquantized tensor as its numbers."""
        return data.view(DTYPES[cast("Precision", self.kind)]).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header. `quant` is the precision of the matrices, or a llama.cpp quant name such as `q4_k_m`."""

    path: Path
    format: Format
    shape: Shape
    quant: str
    tensors: Mapping[str, TensorEntry]

    @property
    def quantized(self) -> bool:
        """Whether any tensor is in a block format, so that there are no exact values to convert."""
        return any(tensor.kind not in PRECISIONS for tensor in self.tensors.values())

    @property
    def precision(self) -> Precision:
        """The precision of the matrices, `f32` for a quantized file."""
        return self.quant if self.quant in PRECISIONS else "f32"


@dataclass(frozen=True, slots=True)
class MappedHeader(Header):
    """The header of a `.st` or `.gguf` file, whose tensors can be memory-mapped. A `.pth` is read by torch instead."""

    layout: tuple[Stored, ...]

    def stored(self) -> Iterator[tuple[TensorEntry, Array]]:
        """Every tensor with its mapped bytes."""
        data = mapped(self.path)
        for tensor in self.tensors.values():
            yield tensor, data[tensor.start : tensor.start + tensor.nbytes]

    def weights(self) -> MappedWeights:
        """The canonical tensors, mapped.

        Raises:
            ModelError: the file is quantized.
        """
        if self.quantized:
            raise ModelError(
                f"{str(self.path)!r} is quantized as {self.quant} and nothing can be made from it;"
                " give the model's .pth, .st or F16 .gguf file"
            )
        arrays = {tensor.name: tensor.array(data) for tensor, data in self.stored()}
        return MappedWeights(self.shape, self.precision, canonical_tensors(self.layout, arrays))
