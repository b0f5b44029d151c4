"""`Weights`, the interface through which writers and the content hash read a model, and rounding between precisions."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

from pytest_rwkvperf.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.shapes import Shape, TensorSpec

Array = npt.NDArray[Any]

DTYPES: Mapping[Precision, np.dtype[Any]] = {
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f16": np.dtype("<f2"),
    "f32": np.dtype("<f4"),
}
_PRECISIONS: Mapping[np.dtype[Any], Precision] = {dtype: precision for precision, dtype in DTYPES.items()}


class Weights(Protocol):
    """A model's canonical tensors, read a block of rows at a time: they need not fit in memory."""

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
    return converted(values, precision, name)[0]


def converted(values: Array, precision: Precision, name: str) -> tuple[Array, int]:
    """Values rounded to nearest even into a precision, and how many of them that changed.

    Raises:
        ModelError: a finite value of tensor `name` would overflow.
    """
    target = DTYPES[precision]
    if values.dtype == target:
        return values, 0
    if precision == "f32":  # holds every value of both 16-bit formats
        return values.astype(target), 0
    if values.dtype.itemsize == target.itemsize:
        return _by_table(values, precision, name)
    # bfloat16 is not NumPy's own type and raises no floating-point flag, so overflows are detected by infinities.
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(target)
    back = narrow.astype(np.float32)
    if bool((np.isinf(back) & np.isfinite(values)).any()):
        raise _overflow(values, precision, name)
    return narrow, int(np.count_nonzero((back != values) & ~np.isnan(values)))


_ROUNDED, _OVERFLOWS = 1, 2


@cache
def _table(source: np.dtype[Any], target: np.dtype[Any]) -> tuple[Array, Array]:
    """For each value of one 16-bit format: its bits in the other, and whether it is exact (0), rounded or overflows."""
    wide = np.arange(1 << 16, dtype="<u2").view(source).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = wide.astype(target)
    back = narrow.astype(np.float32)
    outcome = np.where((back != wide) & ~np.isnan(wide), _ROUNDED, 0).astype(np.uint8)
    outcome[np.isinf(back) & np.isfinite(wide)] = _OVERFLOWS
    return narrow.view("<u2"), outcome


def _by_table(values: Array, precision: Precision, name: str) -> tuple[Array, int]:
    table, outcomes = _table(values.dtype, DTYPES[precision])
    bits = np.ascontiguousarray(values).view("<u2")
    outcome = outcomes.take(bits)
    if outcome.max(initial=0) == _OVERFLOWS:
        raise _overflow(values.astype(np.float32), precision, name)
    return table.take(bits).view(DTYPES[precision]), int(np.count_nonzero(outcome))


def _overflow(wide: Array, precision: Precision, name: str) -> ModelError:
    largest = float(np.abs(wide[np.isfinite(wide)]).max())
    return ModelError(f"tensor {name!r} holds {largest:g}, which {precision} cannot hold; use a format with more range")


_INFINITY: Mapping[np.dtype[Any], tuple[str, int]] = {
    DTYPES["bf16"]: ("2", 0x7F80),
    DTYPES["f16"]: ("2", 0x7C00),
    DTYPES["f32"]: ("4", 0x7F800000),
}
"""Width in bytes and the bits of +infinity; NaNs lie above them, and with the sign bit -infinity and the other NaNs."""


def check_finite(values: Array, name: str) -> None:
    """Refuse NaN and infinity, by two reductions over the bits and without a copy.

    Raises:
        ModelError: tensor `name` holds one.
    """
    width, infinity = _INFINITY[values.dtype]
    bits = np.ascontiguousarray(values)
    signed, unsigned = bits.view(f"<i{width}"), bits.view(f"<u{width}")
    sign = 1 << (8 * int(width) - 1)
    if signed.max(initial=0) >= infinity or unsigned.max(initial=0) >= infinity + sign:
        bad = int(np.count_nonzero(~np.isfinite(values.astype(np.float32))))
        raise ModelError(
            f"tensor {name!r} holds NaN or infinity ({bad} in the first rows that do); the file is damaged or its"
            " training diverged: download it again"
        )


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


def precision_of(weights: Weights, spec: TensorSpec) -> Precision:
    """The precision of one tensor; tensors of one file may differ."""
    return _PRECISIONS[weights.rows(spec, 0, 1).dtype]


def bytes_of(values: Array) -> memoryview:
    """An array's values in order as a flat buffer, for files and hashes. NumPy gives no buffer of bfloat16 itself."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
