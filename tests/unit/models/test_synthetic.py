from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models.hashing import content_hash
from pytest_rwkvperf.models.shapes import SHAPES, Shape, TensorSpec, tensor_specs
from pytest_rwkvperf.models.synthetic import Range, SyntheticModel, parse, value_range

if TYPE_CHECKING:
    from pytest_rwkvperf.models.streams import Progress

NANO = parse("synthetic:nano")
NANO_SPECS = {spec.name: spec for spec in tensor_specs(NANO.shape)}


def integers(model: SyntheticModel, name: str, start: int = 0) -> list[int]:
    """The first values of a row, in units of the tensor's grid."""
    spec = NANO_SPECS[name]
    row = model.rows(spec, start, start + 1, "f32").ravel()[:6].astype(np.float64)
    return [int(value) for value in row * 2.0 ** value_range(spec).exponent]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("emb.weight", [94, -124, 123, -25, -86, -103]),
        ("blocks.0.att.w0", [-122, -72, -188, -41, -191, -68]),
        ("blocks.1.att.v1", [27, -101, -114, -186, -150, 79]),
        ("blocks.3.ffn.value.weight", [-122, -53, 221, -214, 32, 200]),
        ("blocks.2.ln1.weight", [151, 140, 106, 157, 104, 139]),
        ("head.weight", [218, 124, -75, 164, -164, -4]),
    ],
)
def test_golden_values(name: str, expected: list[int]) -> None:
    assert integers(NANO, name) == expected


def test_golden_content_hash(quiet: Progress) -> None:
    assert content_hash(NANO, quiet, "") == "cb1f855066ba03bcb47a46ada59b494b9a17fcc25e8f96ff5b413c9eef4643f3"


def philox(key: int, counter: int) -> list[int]:
    """One step of Philox-4x64-10, from the paper (Salmon et al. 2011, figure 1 and table 2), in whole numbers."""
    mask = (1 << 64) - 1
    words, keys = [counter, 0, 0, 0], [key & mask, key >> 64]
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * words[0], 1 << 64)
        high1, low1 = divmod(0xCA5A826395121157 * words[2], 1 << 64)
        words = [high1 ^ words[1] ^ keys[0], low1, high0 ^ words[3] ^ keys[1], low0]
        keys = [(keys[0] + 0x9E3779B97F4A7C15) & mask, (keys[1] + 0xBB67AE8584CAA73B) & mask]
    return words


def test_the_stream_is_philox_as_published() -> None:
    key = int.from_bytes(hashlib.sha256(b"pytest-rwkvperf synthetic 1 0 emb.weight").digest()[:16], "little")
    data = b"".join(word.to_bytes(8, "little") for step in (1, 2, 3) for word in philox(key, step))
    low, high = -128, 128
    expected = [low + (2 * byte * (high - low) + 255) // 510 for byte in data]
    row = NANO.rows(NANO_SPECS["emb.weight"], 0, 1, "f32").ravel()[: len(expected)]
    assert (row * 256).tolist() == expected


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_range_of_every_shape_is_on_the_shared_grid(shape: Shape) -> None:
    for spec in tensor_specs(shape):
        values = value_range(spec)
        grid = np.ldexp(values.integers().astype(np.float64), -values.exponent)
        assert (grid == grid.astype(np.float16)).all()
        assert values.integers()[0] == values.low
        assert values.integers()[-1] == values.high


@given(st.sampled_from(sorted(NANO_SPECS)))
def test_all_precisions_hold_the_same_numbers(name: str) -> None:
    spec = NANO_SPECS[name]
    stop = min(spec.rows, 64)
    full = NANO.rows(spec, 0, stop, "f32")
    assert (NANO.rows(spec, 0, stop, "f16").astype(np.float32) == full).all()
    assert (NANO.rows(spec, 0, stop, "bf16").astype(np.float32) == full).all()


@given(st.integers(1, 60), st.integers(1, 100), st.data())
def test_rows_do_not_depend_on_where_reading_starts(rows: int, columns: int, data: st.DataObject) -> None:
    spec = TensorSpec("blocks.0.att.key.weight", (rows, columns))
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    assert (NANO.rows(spec, start, stop) == NANO.rows(spec, 0, rows)[start:stop]).all()


def test_seed_and_name_change_the_numbers() -> None:
    other_seed = SyntheticModel("nano:7", NANO.shape, 7)
    assert integers(NANO, "emb.weight") != integers(other_seed, "emb.weight")
    assert integers(NANO, "blocks.0.att.key.weight") != integers(NANO, "blocks.1.att.key.weight")


@pytest.mark.parametrize(
    "name", ["blocks.1.att.key.weight", "blocks.1.att.g2", "head.weight", "blocks.2.ffn.key.weight"]
)
def test_matrices_have_zero_mean_and_the_given_spread(name: str) -> None:
    spec = NANO_SPECS[name]
    values = NANO.rows(spec, 0, min(spec.rows, 2048), "f32").astype(np.float64)
    width = value_range(spec).high * 2.0 ** -value_range(spec).exponent
    assert abs(values.mean()) < 5 * values.std() / np.sqrt(values.size)
    assert values.std() == pytest.approx(width / np.sqrt(3), rel=0.02)


def test_references() -> None:
    assert parse("synthetic:2.9b") == SyntheticModel("2.9b", SHAPES["2.9b"], 0)
    assert parse("synthetic:nano:12") == SyntheticModel("nano:12", SHAPES["nano"], 12)
    assert parse("synthetic:nano:0") == NANO


@pytest.mark.parametrize("reference", ["synthetic:", "synthetic:3b", "synthetic:NANO"])
def test_an_unknown_shape_names_the_known_ones(reference: str) -> None:
    with pytest.raises(ModelError, match=", ".join(map(re.escape, SHAPES))):
        parse(reference)


@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5", "٣", "1:2"])
def test_seed_must_be_a_whole_number(seed: str) -> None:
    with pytest.raises(ModelError, match="not a whole number"):
        parse(f"synthetic:nano:{seed}")


@pytest.mark.parametrize("values", [(-256, 0, 1), (0, 256, 1), (1, 0, 1), (0, 1, 25), (0, 1, -1)])
def test_a_range_off_the_grid_is_refused(values: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="grid"):
        Range(*values)
