"""web-rwkv's block formats, value by value as its shaders define them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_rwkvperf.core.errors import BackendError
from pytest_rwkvperf.models.shapes import Shape, TensorSpec, tensor_specs
from pytest_rwkvperf.models.synthetic import SyntheticModel
from pytest_rwkvperf.oracle import emulation

if TYPE_CHECKING:
    from pytest_rwkvperf.models.weights import Array, Weights

MATRICES = ("att.receptance", "att.key", "att.value", "att.output", "ffn.key", "ffn.value")


def whole(weights: Weights, spec: TensorSpec) -> Array:
    return weights.rows(spec, 0, spec.rows, "f32")


def int8_one_by_one(values: Array) -> Array:
    """The shader's arithmetic, block by block; ties to even."""
    restored = []
    for start in range(0, len(values), 128):
        block = values[start : start + 128]
        low, high = block.min(), block.max()
        for value in block:
            share = np.clip((value - low) / (high - low), np.float32(0), np.float32(1))
            byte = np.float32(round(float(np.float32(255) * share)))
            restored.append(byte / np.float32(255) * (high - low) + low)
    return np.array(restored, np.float32)


def float4_one_by_one(values: Array, levels: Array) -> Array:
    """As above: the last of the nearest levels."""
    restored = []
    for start in range(0, len(values), 64):
        block = values[start : start + 64]
        largest = np.abs(block).max()
        for value in block:
            nearest, error = 0, np.float32(1)
            for index, level in enumerate(levels):
                if abs(level - value * (np.float32(1) / largest)) <= error:
                    nearest, error = index, abs(level - value * (np.float32(1) / largest))
            restored.append(levels[nearest] * largest)
    return np.array(restored, np.float32)


@pytest.fixture
def values() -> Array:
    return np.random.default_rng(5).standard_normal(1024).astype(np.float16).astype(np.float32)


def test_int8_is_the_shaders(values: Array) -> None:
    got = emulation.through_int8(values.reshape(-1, 128)).reshape(-1)
    np.testing.assert_allclose(got, int8_one_by_one(values), rtol=0, atol=1e-6)


def test_nf4_is_the_shaders(values: Array) -> None:
    got = emulation.through_nf4(values.reshape(-1, 64)).reshape(-1)
    np.testing.assert_array_equal(got, float4_one_by_one(values, emulation.NF4_LEVELS))


def test_sf4_is_the_shaders(values: Array) -> None:
    got = emulation.through_sf4(values.reshape(-1, 64)).reshape(-1)
    np.testing.assert_array_equal(got, float4_one_by_one(values, emulation.sf4_levels()))


def test_sf4_levels_are_the_published_ones() -> None:
    """Table of SF4 for 5 degrees of freedom in arXiv 2405.03103, to its three digits."""
    published = [
        -1,
        -0.628,
        -0.455,
        -0.334,
        -0.237,
        -0.153,
        -0.075,
        0,
        0.066,
        0.133,
        0.205,
        0.284,
        0.376,
        0.491,
        0.657,
        1,
    ]
    np.testing.assert_allclose(emulation.sf4_levels(), published, atol=6e-4)


@pytest.mark.parametrize("through", [emulation.through_int8, emulation.through_nf4, emulation.through_sf4])
def test_constant_blocks_do_not_change(through: object) -> None:
    assert callable(through)
    for value in (0.0, 0.25, -3.0):
        blocks = np.full((2, 128), value, np.float32)
        np.testing.assert_array_equal(through(blocks), blocks)


def test_exactly_the_six_matrices_of_the_first_layers_change(model: SyntheticModel) -> None:
    applied = emulation.applied(model, "web-rwkv:nf4@2")
    changed = {
        spec.name for spec in tensor_specs(model.shape) if not np.array_equal(whole(applied, spec), whole(model, spec))
    }
    assert changed == {f"blocks.{layer}.{name}.weight" for layer in (0, 1) for name in MATRICES}


def test_without_a_count_every_layer_is_quantized(model: SyntheticModel) -> None:
    every, three = (emulation.applied(model, f"web-rwkv:int8{count}") for count in ("", "@3"))
    spec = TensorSpec("blocks.2.ffn.key.weight", (512, 128))
    np.testing.assert_array_equal(whole(every, spec), whole(three, spec))
    assert not np.array_equal(whole(every, spec), whole(model, spec))


def test_empty_emulation_changes_nothing(model: SyntheticModel) -> None:
    assert emulation.applied(model, "") is model


@pytest.mark.parametrize("name", ["web-rwkv:fp4", "web-rwkv:int8@", "int8", "web-rwkv:int8@3x", "mine:odd"])
def test_unknown_emulation_names_the_known_ones(name: str, model: SyntheticModel) -> None:
    with pytest.raises(BackendError, match=r"no emulation .* web-rwkv:int8, web-rwkv:nf4 and web-rwkv:sf4"):
        emulation.applied(model, name)


@pytest.mark.parametrize("quant", ["int8", "nf4"])
def test_blocks_across_rows_do_not_depend_on_where_reading_starts(quant: str) -> None:
    """A width of 192 is not a multiple of 128: every second block lies in two rows."""
    applied = emulation.applied(SyntheticModel("odd", Shape(1, 192, 8, 8, 8, 8, vocabulary=70)), f"web-rwkv:{quant}")
    spec = TensorSpec("blocks.0.att.key.weight", (192, 192))
    pieces = [applied.rows(spec, start, min(start + 5, 192), "f32").reshape(-1, 192) for start in range(0, 192, 5)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole(applied, spec).reshape(192, 192))


def test_rows_come_in_the_precision_asked_for(model: SyntheticModel) -> None:
    applied = emulation.applied(model, "web-rwkv:nf4")
    spec = TensorSpec("blocks.0.att.key.weight", (128, 128))
    assert applied.rows(spec, 0, 2, "f16").dtype == np.float16
    assert applied.rows(spec, 0, 2).dtype == np.float32
