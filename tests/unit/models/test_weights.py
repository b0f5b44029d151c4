from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models.weights import DTYPES, Array, bytes_of, cast, check_finite, converted

if TYPE_CHECKING:
    from pytest_rwkvperf.models.model import Precision

singles = st.lists(st.floats(width=32, allow_nan=False, min_value=-65000, max_value=65000), min_size=1, max_size=50)


@given(singles)
def test_float16_is_rounded_to_nearest_even(values: list[float]) -> None:
    wide = np.array(values, np.float32)
    # NumPy's own scalar conversion from double rounds once and to even.
    expected = np.array([np.float16(float(value)) for value in wide])
    assert (cast(wide, "f16", "t") == expected).all()


@given(singles)
def test_bfloat16_is_rounded_to_nearest_even(values: list[float]) -> None:
    bits = np.array(values, np.float32).view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    assert (cast(np.array(values, np.float32), "bf16", "t").view(np.uint16) == expected).all()


@pytest.mark.parametrize("precision", ["bf16", "f16", "f32"])
def test_a_precision_that_is_already_there_is_not_copied(precision: Precision) -> None:
    values = np.ones(4, DTYPES[precision])
    assert cast(values, precision, "t") is values


@pytest.mark.parametrize(
    ("values", "precision"),
    [
        (np.array([1.0, 70000.0], np.float32), "f16"),
        (np.array([-1e30], ml_dtypes.bfloat16), "f16"),
        (np.array([np.finfo(np.float32).max], np.float32), "bf16"),
    ],
)
def test_overflow_names_the_tensor(values: np.ndarray, precision: Precision) -> None:
    with pytest.raises(ModelError, match=r"'blocks\.0\.x'.*cannot hold"):
        cast(values, precision, "blocks.0.x")


def test_infinity_itself_is_not_an_overflow() -> None:
    assert np.isinf(cast(np.array([np.inf], np.float32), "f16", "t")).all()
    assert np.isinf(cast(np.array([np.inf], np.float32), "bf16", "t")).all()


def test_bytes_follow_the_values_order_whatever_the_memory_layout() -> None:
    matrix = np.arange(6, dtype=np.float16).reshape(2, 3)
    assert bytes(bytes_of(matrix.T)) == np.ascontiguousarray(matrix.T).tobytes()
    assert bytes(bytes_of(matrix.astype(ml_dtypes.bfloat16))) == matrix.astype(ml_dtypes.bfloat16).tobytes()


def reference(values: Array, precision: Precision) -> tuple[Array, int]:
    """Rounding one value at a time, with NumPy's and ml_dtypes' scalars."""
    wide = values.astype(np.float32)
    narrow = np.array([DTYPES[precision].type(value) for value in wide], DTYPES[precision])
    return narrow, int(np.count_nonzero(narrow.astype(np.float32) != wide))


@pytest.mark.parametrize("source", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("target", ["bf16", "f16", "f32"])
@settings(max_examples=40)
@given(bits=st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=50))
def test_values_are_rounded_to_nearest_even_and_counted(source: Precision, target: Precision, bits: list[int]) -> None:
    raw = np.array(bits, "<u2")
    values = raw.view(DTYPES[source]) if source != "f32" else (raw.astype("<u4") << 14 | 0x1001).view("<f4")
    limit = 60_000 if target == "f16" else 1e38
    values = values[np.abs(np.nan_to_num(values.astype(np.float32), nan=np.inf)) < limit]
    rounded, count = converted(values, target, "w")
    expected, changed = reference(values, target)
    assert rounded.dtype == DTYPES[target]
    assert (rounded.astype(np.float32) == expected.astype(np.float32)).all()
    assert count == changed


@pytest.mark.parametrize(("source", "value"), [("f32", 65520.0), ("bf16", 65536.0), ("f32", 1e30)])
def test_an_overflow_names_the_tensor_and_the_value(source: Precision, value: float) -> None:
    with pytest.raises(ModelError, match=rf"'w' holds {value:g}, which f16 cannot hold".replace("+", r"\+")):
        converted(np.array([1, value], np.float32).astype(DTYPES[source]), "f16", "w")


@pytest.mark.parametrize("precision", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 5])
def test_nan_and_infinity_are_found(precision: Precision, bad: float, at: int) -> None:
    values = np.array([1, -2, 0, -0.0, 3e4, 5], np.float32)
    check_finite(values.astype(DTYPES[precision]), "w")
    values[at] = bad
    with pytest.raises(ModelError, match=r"'w' holds NaN or infinity \(1 "):
        check_finite(values.astype(DTYPES[precision]), "w")
