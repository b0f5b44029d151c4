"""Weights read a piece at a time: what every writer and the content hash take, whatever the weights come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

from pytest_rwkvperf.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.models.files import Precision
    from pytest_rwkvperf.models.shapes import Shape, TensorSpec

Array = npt.NDArray[Any]

DTYPES: Mapping[Precision, np.dtype[Any]] = {
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f16": np.dtype("<f2"),
    "f32": np.dtype("<f4"),
}


class Weights(Protocol):
    """A model's canonical tensors, without the promise that they fit in memory."""

    @property
    def shape(self) -> Shape:
        """The model's dimensions."""

    @property
    def precision(self) -> Precision:
        """The format in which the matrices are held."""

    def rows(self, spec: TensorSpec, start: int, stop: int, precision: Precision | None = None) -> Array:
        """Rows `start` to `stop` of a canonical tensor, flat or `[rows, row_size]`, rounded to `precision`.

        Without a precision the values come as they are held.

        Raises:
            ModelError: a finite value would overflow in `precision`.
        """


def cast(values: Array, precision: Precision, name: str) -> Array:
    """Round to nearest even into a precision; the array itself when it already has it.

    Raises:
        ModelError: a finite value of tensor `name` would overflow.
    """
    target = DTYPES[precision]
    if values.dtype == target:
        return values
    wide = values if values.dtype == np.float32 else values.astype(np.float32)  # exact from both 16-bit formats
    if precision == "f32":
        return wide
    try:
        with np.errstate(over="raise"):
            narrow = wide.astype(target)
    except FloatingPointError:
        raise _overflow(wide, precision, name) from None
    # bfloat16 is not NumPy's own and raises no floating-point flag: only the largest float32 values can overflow it.
    if precision == "bf16" and not np.array_equal(np.isinf(narrow.astype(np.float32)), np.isinf(wide)):
        raise _overflow(wide, precision, name)
    return narrow


def _overflow(wide: Array, precision: Precision, name: str) -> ModelError:
    largest = float(np.abs(wide[np.isfinite(wide)]).max())
    return ModelError(f"tensor {name!r} holds {largest:g}, which {precision} cannot hold; use a format with more range")


class MappedWeights:
    """Weights as views of memory-mapped files, each already in canonical shape."""

    def __init__(self, shape: Shape, precision: Precision, tensors: Mapping[str, Array]) -> None:
        self.shape = shape
        self.precision = precision
        self._tensors = tensors

    def rows(self, spec: TensorSpec, start: int, stop: int, precision: Precision | None = None) -> Array:
        """See `Weights.rows`."""
        tensor = self._tensors[spec.name].reshape(spec.rows, spec.row_size)
        held = tensor[start:stop]
        return held if precision is None else cast(held, precision, spec.name)


def bytes_of(values: Array) -> memoryview:
    """An array's values in order as a flat buffer, for files and hashes; bfloat16 has no buffer of its own."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
