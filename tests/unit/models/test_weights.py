from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.errors import ModelError
from pytest_rwkvperf.models.weights import DTYPES, bytes_of, cast

if TYPE_CHECKING:
    from pytest_rwkvperf.models.files import Precision

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
