from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_rwkvperf.models import shapes
from pytest_rwkvperf.models.layouts import canonical_tensors, gguf_layout, gguf_name, pth_layout, st_layout
from pytest_rwkvperf.models.shapes import SHAPES, Shape, tensor_specs
from pytest_rwkvperf.models.synthetic import SyntheticModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.models.layouts import Stored
    from pytest_rwkvperf.models.weights import Array, Weights

shape_strategy = st.builds(
    Shape,
    layers=st.integers(2, 3),
    width=st.sampled_from([64, 128]),
    rank_w=st.integers(1, 9),
    rank_a=st.integers(1, 9),
    rank_v=st.integers(1, 9),
    rank_g=st.integers(1, 9),
    vocabulary=st.integers(1, 20),
)


def stored_arrays(layout: tuple[Stored, ...], weights: Weights) -> dict[str, Array]:
    """A file's stored arrays, in memory."""
    return {
        entry.name: np.concatenate([task().reshape(-1) for task in entry.tasks(weights)]).reshape(entry.shape)
        for entry in layout
    }


@settings(max_examples=30)  # sizes that must not be taken for each other, and three formats: there is no corner
@given(shape_strategy, st.integers(0, 5), st.sampled_from(["pth", "st", "gguf"]))
def test_every_layout_round_trips(shape: Shape, seed: int, kind: str) -> None:
    weights = SyntheticModel("any", shape, seed)
    layout = {"pth": pth_layout(shape, "bf16"), "st": st_layout(shape), "gguf": gguf_layout(shape)}[kind]
    back = canonical_tensors(layout, stored_arrays(layout, weights))
    assert set(back) == {spec.name for spec in tensor_specs(shape)}
    for spec in tensor_specs(shape):
        expected = weights.rows(spec, 0, spec.rows, "f32").reshape(spec.shape)
        assert back[spec.name].shape == spec.shape
        assert (back[spec.name].astype(np.float32) == expected).all()


def test_blocks_of_a_plain_matrix_join_to_the_matrix(model: SyntheticModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stored_arrays(st_layout(model.shape), model)
    monkeypatch.setattr(shapes, "BLOCK_VALUES", 200)
    cut = stored_arrays(st_layout(model.shape), model)
    assert all((whole[name] == cut[name]).all() for name in whole)


def by_name(layout: tuple[Stored, ...]) -> Mapping[str, Stored]:
    return {entry.name: entry for entry in layout}


def test_st_transposes_only_the_low_rank_matrices(model: SyntheticModel) -> None:
    turned = {entry.name for entry in st_layout(model.shape) if entry.layout == "transposed"}
    assert turned == {
        f"blocks.{layer}.att.{pair}"
        for layer in (0, 1)
        for pair in ("w1", "w2", "a1", "a2", "g1", "g2", "v1", "v2")
        if layer or pair[0] != "v"
    }
    assert by_name(st_layout(model.shape))["blocks.0.att.w1"].shape == (16, 64)
    assert {entry.precision for entry in st_layout(model.shape)} == {"f16"}


@pytest.mark.parametrize(
    ("canonical", "name"),
    [
        ("emb.weight", "token_embd.weight"),
        ("blocks.0.ln0.bias", "token_embd_norm.bias"),
        ("ln_out.weight", "output_norm.weight"),
        ("head.weight", "output.weight"),
        ("blocks.3.ln1.weight", "blk.3.attn_norm.weight"),
        ("blocks.3.ln2.bias", "blk.3.attn_norm_2.bias"),
        ("blocks.12.att.w0", "blk.12.time_mix_w0.weight"),
        ("blocks.12.att.g2", "blk.12.time_mix_g2.weight"),
        ("blocks.1.att.r_k", "blk.1.time_mix_r_k.weight"),
        ("blocks.1.att.k_k", "blk.1.time_mix_k_k.weight"),
        ("blocks.1.att.receptance.weight", "blk.1.time_mix_receptance.weight"),
        ("blocks.1.att.ln_x.bias", "blk.1.time_mix_ln.bias"),
        ("blocks.1.ffn.x_k", "blk.1.channel_mix_lerp_k.weight"),
        ("blocks.1.ffn.value.weight", "blk.1.channel_mix_value.weight"),
    ],
)
def test_gguf_names(canonical: str, name: str) -> None:
    assert gguf_name(canonical) == name


def test_gguf_shapes_and_types_are_the_converters(model: SyntheticModel) -> None:
    layout = by_name(gguf_layout(model.shape))
    assert (layout["blk.1.time_mix_lerp_fused.weight"].shape, layout["blk.1.time_mix_lerp_fused.weight"].precision) == (
        (6, 1, 1, 64),
        "f32",
    )
    assert [part.name[-3:] for part in layout["blk.1.time_mix_lerp_fused.weight"].parts] == [
        "x_r",
        "x_w",
        "x_k",
        "x_v",
        "x_a",
        "x_g",
    ]
    assert (layout["blk.1.time_mix_w1.weight"].shape, layout["blk.1.time_mix_w1.weight"].precision) == ((16, 64), "f32")
    assert (layout["blk.1.time_mix_a2.weight"].shape, layout["blk.1.time_mix_a2.weight"].precision) == ((64, 24), "f16")
    assert (layout["blk.1.time_mix_r_k.weight"].shape, layout["blk.1.time_mix_r_k.weight"].precision) == ((64,), "f32")
    assert layout["blk.1.time_mix_w0.weight"].shape == (64,)
    assert (layout["output.weight"].shape, layout["output.weight"].precision) == ((128, 64), "f16")


def test_layer_zeros_value_residual_is_a_placeholder(model: SyntheticModel) -> None:
    layout = gguf_layout(model.shape)
    placeholders = [entry for entry in layout if entry.placeholder]
    assert [entry.name for entry in placeholders] == [f"blk.0.time_mix_v{index}.weight" for index in range(3)]
    arrays = stored_arrays(layout, model)
    for entry in placeholders:
        assert (arrays[entry.name] == arrays[entry.name.replace("mix_v", "mix_a")]).all()
    assert by_name(layout)["blk.0.time_mix_v1.weight"].shape == (24, 64)  # the a rank
    assert by_name(layout)["blk.1.time_mix_v1.weight"].shape == (8, 64)  # the v rank


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_tensors_not_streamed_in_rows_are_small(shape: Shape) -> None:
    for layout in (st_layout(shape), gguf_layout(shape)):
        assert all(entry.nbytes <= 8 << 20 for entry in layout if entry.layout != "plain")
