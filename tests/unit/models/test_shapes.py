from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models.shapes import BLOCK_VALUES, SHAPES, Shape, TensorSpec, shape_of, tensor_specs

PUBLISHED_PARAMETERS = {
    "0.1b": 0.191e9,
    "0.4b": 0.451e9,
    "1.5b": 1.528e9,
    "2.9b": 2.948e9,
    "7.2b": 7.2e9,
    "13.3b": 13.27e9,
}


def dims(shape: Shape) -> dict[str, tuple[int, ...]]:
    return {spec.name: spec.shape for spec in tensor_specs(shape)}


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED_PARAMETERS.items())
def test_parameters_are_the_published_ones(name: str, parameters: float) -> None:
    assert SHAPES[name].parameters == pytest.approx(parameters, rel=0.003)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_tensors_hold_all_parameters_except_layer_zeros_value_residual(shape: Shape) -> None:
    unused = shape.width + 2 * shape.width * shape.rank_v
    assert sum(spec.size for spec in tensor_specs(shape)) == shape.parameters - unused


def test_state_size() -> None:
    assert SHAPES["2.9b"].state_floats == 32 * (2 * 2560 + 64 * 2560)


shapes = st.builds(
    Shape,
    layers=st.integers(1, 70),
    width=st.integers(1, 8).map(lambda heads: 64 * heads),
    rank_w=st.integers(1, 200),
    rank_a=st.integers(1, 200),
    rank_v=st.integers(1, 200),
    rank_g=st.integers(1, 500),
    vocabulary=st.integers(1, 70_000),
)


@settings(max_examples=40)
@given(shapes)
def test_a_shape_is_read_back_from_its_tensors(shape: Shape) -> None:
    found = shape_of(dims(shape))
    if shape.layers == 1:  # the value residual begins at layer 1: with one layer its rank is nowhere
        shape = Shape(1, shape.width, shape.rank_w, shape.rank_a, shape.rank_a, shape.rank_g, shape.vocabulary)
    assert found == shape


@pytest.mark.parametrize("name", ["blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2"])
def test_unused_tensors_of_layer_zero_are_accepted(name: str, tiny: Shape) -> None:
    assert shape_of({**dims(tiny), name: (1,)}) == tiny


def test_vectors_may_come_without_their_leading_ones(tiny: Shape) -> None:
    squeezed = {name: shape[-1:] if shape[:2] == (1, 1) else shape for name, shape in dims(tiny).items()}
    assert shape_of(squeezed) == tiny


@pytest.mark.parametrize("name", [spec.name for spec in tensor_specs(Shape(2, 64, 16, 24, 8, 40, 128))])
def test_every_missing_tensor_is_named(name: str, tiny: Shape) -> None:
    tensors = dims(tiny)
    del tensors[name]
    with pytest.raises(ModelError, match=re.escape(repr(name))):
        shape_of(tensors)


@pytest.mark.parametrize("name", ["blocks.1.att.key.weight", "blocks.0.ffn.value.weight", "ln_out.bias", "head.weight"])
def test_a_wrong_shape_is_named(name: str, tiny: Shape) -> None:
    with pytest.raises(ModelError, match=rf"{re.escape(name)}.*\[3, 5\]"):
        shape_of({**dims(tiny), name: (3, 5)})


def test_a_flattened_matrix_is_not_a_matrix(tiny: Shape) -> None:
    with pytest.raises(ModelError, match=r"blocks\.1\.att\.key\.weight"):
        shape_of({**dims(tiny), "blocks.1.att.key.weight": (64 * 64,)})


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("blocks.0.att.time_first", "RWKV-4"),
        ("blocks.0.att.time_faaaa", "RWKV-5"),
        ("blocks.0.att.time_maa_x", "RWKV-6"),
        ("model.layers.0.self_attn.q_proj.weight", "Hugging Face"),
        ("blocks.0.ffn.s_emb.weight", "DeepEmbed"),
        ("blocks.0.att.extra", "unknown"),
    ],
)
def test_other_architectures_are_named(name: str, what: str, tiny: Shape) -> None:
    with pytest.raises(ModelError, match=what):
        shape_of({**dims(tiny), name: (1,)})


@pytest.mark.parametrize(("lost", "said"), [(0, "it has layer 2 and no layer 0"), (1, "it has layer 2 and no layer 1")])
def test_a_missing_layer_is_named(lost: int, said: str, tiny: Shape) -> None:
    tensors = dims(replace(tiny, layers=3))
    left = {name: shape for name, shape in tensors.items() if not name.startswith(f"blocks.{lost}.")}
    with pytest.raises(ModelError, match=said):
        shape_of(left)


def test_no_tensors_is_not_rwkv() -> None:
    with pytest.raises(ModelError, match=r"blocks\.0"):
        shape_of({})


@given(st.integers(1, 70_000), st.integers(1, 17_000))
def test_blocks_cover_a_matrix_once_and_stay_small(rows: int, columns: int) -> None:
    spec = TensorSpec("m", (rows, columns))
    blocks = list(spec.blocks())
    assert [start for start, _ in blocks] == [0, *(stop for _, stop in blocks[:-1])]
    assert blocks[-1][1] == rows
    assert all((stop - start) * columns <= BLOCK_VALUES for start, stop in blocks)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.rwkv."])
def test_a_wrappers_prefix_is_named(prefix: str, tiny: Shape) -> None:
    with pytest.raises(ModelError, match=f"names begin with '{prefix}'.*take that off"):
        shape_of({f"{prefix}{name}": dimensions for name, dimensions in dims(tiny).items()})
