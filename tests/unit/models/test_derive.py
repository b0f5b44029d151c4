from __future__ import annotations

import tracemalloc
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_rwkvperf.core.cases import FORMATS, Format
from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import derive, gguf, shapes
from pytest_rwkvperf.models.file_format import read_header
from pytest_rwkvperf.models.hashing import content_hash
from pytest_rwkvperf.models.header import MappedHeader
from pytest_rwkvperf.models.layouts import gguf_layout, pth_layout, st_layout
from pytest_rwkvperf.models.shapes import SHAPES, Shape, TensorSpec, tensor_specs
from pytest_rwkvperf.models.synthetic import SyntheticModel
from pytest_rwkvperf.models.weights import MappedWeights, converted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.streams import Progress
    from pytest_rwkvperf.models.weights import Weights

    MakeWeights = Callable[[Precision, int], MappedWeights]

TINY = Shape(layers=2, width=64, rank_w=16, rank_a=24, rank_v=8, rank_g=40, vocabulary=128)

# Matrices of 33 MB, in blocks of a quarter of the usual size: whole, one of them with what it is made from takes
# 112 MiB; in blocks it takes 26.
WIDE = SyntheticModel(
    "wide", Shape(layers=1, width=1024, rank_w=64, rank_a=64, rank_v=32, rank_g=128, vocabulary=16384)
)


@pytest.mark.usefixtures("small_vocabulary")
@pytest.mark.parametrize("kind", FORMATS)
def test_memory_does_not_grow_with_the_largest_tensor(
    kind: Format, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shapes.BLOCK_VALUES <= 1 << 22
    monkeypatch.setattr(shapes, "BLOCK_VALUES", 1 << 20)
    target = tmp_path / f"wide.{kind}"
    tracemalloc.start()
    try:
        derive.write(WIDE, target, kind, "wide", quiet)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    announced = derive.size_in(kind, WIDE.shape, derive.precision_in(kind, WIDE))
    assert announced - (5 << 20) < target.stat().st_size <= announced  # a .gguf may need 4 MiB for its vocabulary
    assert 8 << 20 < peak < 64 << 20


def test_a_pth_keeps_its_sources_precision(quiet: Progress, tmp_path: Path, tiny: Shape) -> None:
    model = SyntheticModel("tiny", tiny)
    derive.write(model, tmp_path / "tiny.st", "st", "tiny", quiet)
    assert derive.precision_in("pth", model) == "bf16"
    assert derive.precision_in("pth", read_weights(tmp_path / "tiny.st")) == "f16"
    assert derive.precision_in("gguf", model) == "f16"


def read_weights(path: Path) -> Weights:
    header = read_header(path)
    assert isinstance(header, MappedHeader)
    return header.weights()


PRECISIONS: tuple[Precision, ...] = ("bf16", "f16", "f32")


@pytest.mark.usefixtures("small_vocabulary")
class TestEveryDirection:
    """The tiny model through every pair of formats."""

    @pytest.mark.parametrize("precision", PRECISIONS)
    @pytest.mark.parametrize("kind", ["pth", "gguf"])
    def test_a_precision_that_holds_the_values_keeps_them(
        self, kind: Format, precision: Precision, tmp_path: Path, make_weights: MakeWeights, quiet: Progress
    ) -> None:
        weights = make_weights(precision, 3)
        written = derive.write(weights, tmp_path / "a", kind, "a", quiet, precision)
        assert written.rounded == 0
        if kind == "gguf":
            back = read_weights(tmp_path / "a")
            assert content_hash(back, quiet, "") == content_hash(weights, quiet, "")

    def test_a_round_trip_through_every_format_is_exact(
        self, tmp_path: Path, make_weights: MakeWeights, quiet: Progress
    ) -> None:
        weights: Weights = make_weights("f16", 4)
        digest = content_hash(weights, quiet, "")
        kinds: tuple[Format, ...] = ("st", "gguf", "st")
        for number, kind in enumerate(kinds):
            path = tmp_path / f"{number}.{kind}"
            assert derive.write(weights, path, kind, "m", quiet).rounded == 0
            weights = read_weights(path)
            assert content_hash(weights, quiet, "") == digest

    @pytest.mark.parametrize("kind", ["pth", "st", "gguf"])
    def test_rounding_is_counted_once_per_value(
        self, kind: Format, tmp_path: Path, make_weights: MakeWeights, quiet: Progress
    ) -> None:
        weights = make_weights("f32", 5)
        specs = tensor_specs(weights.shape)
        written = derive.write(weights, tmp_path / "a", kind, "a", quiet, "f16")
        counted = {
            spec.name: converted(weights.rows(spec, 0, spec.rows), "f16", "")[1]
            for spec in specs
            if kind != "gguf" or _is_f16_in_gguf(spec)
        }
        assert written.values == sum(spec.size for spec in specs)
        assert written.rounded == sum(counted.values()) > 0
        assert written.tensors == sum(count > 0 for count in counted.values())
        assert f"{written.rounded:,} of {written.values:,} values" in written.sentence

    def test_a_pth_keeps_each_tensors_own_precision(
        self, tmp_path: Path, make_weights: MakeWeights, quiet: Progress
    ) -> None:
        source = tmp_path / "a.gguf"
        derive.write(make_weights("bf16", 6), source, "gguf", "a", quiet, "bf16")
        written = derive.write(read_weights(source), tmp_path / "a.pth", "pth", "a", quiet)
        assert written.rounded == 0
        kinds = {name: tensor.kind for name, tensor in read_header(tmp_path / "a.pth").tensors.items()}
        assert kinds["head.weight"] == "bf16"
        assert kinds["blocks.1.att.w0"] == "f32"

    def test_placeholders_are_named(self, model: SyntheticModel, tmp_path: Path, quiet: Progress) -> None:
        written = derive.write(model, tmp_path / "a", "gguf", "a", quiet)
        assert written.placeholders == tuple(f"blk.0.time_mix_v{index}.weight" for index in range(3))
        assert "placeholders" in written.sentence
        assert derive.write(model, tmp_path / "a", "st", "a", quiet).placeholders == ()

    @pytest.mark.parametrize("kind", ["pth", "st", "gguf"])
    def test_overflow_and_nan_are_refused(self, kind: Format, tmp_path: Path, quiet: Progress) -> None:
        for value, reason in ((1e6, "cannot hold"), (np.nan, "NaN")):
            tensors = {spec.name: np.zeros(spec.shape, np.float32) for spec in tensor_specs(TINY)}
            tensors["blocks.1.ffn.key.weight"][3, 3] = value
            with pytest.raises(ModelError, match=rf"'blocks\.1\.ffn\.key\.weight' holds .*{reason}"):
                derive.write(MappedWeights(TINY, "f32", tensors), tmp_path / "a", kind, "a", quiet, "f16")

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_the_layout_of_every_public_shape_holds_every_tensor_once(self, shape: Shape, precision: Precision) -> None:
        names = [spec.name for spec in tensor_specs(shape)]
        for layout in (pth_layout(shape, precision), st_layout(shape), gguf_layout(shape, precision)):
            parts = [spec.name for entry in layout if not entry.placeholder for spec in entry.parts]
            assert sorted(parts) == sorted(names)
            assert len({entry.name for entry in layout}) == len(layout)
            assert all(prod(entry.shape) == sum(spec.size for spec in entry.parts) for entry in layout)


def _is_f16_in_gguf(spec: TensorSpec) -> bool:
    entries = {part.name: entry for entry in gguf_layout(TINY) if not entry.placeholder for part in entry.parts}
    return entries[spec.name].precision == "f16"


def test_shapes_that_an_engine_cannot_load_are_known_before_anything_is_written(tiny: Shape) -> None:
    world = replace(tiny, vocabulary=len(gguf.world_tokens()))
    assert [derive.obstacle(each, world) for each in ("pth", "gguf", "st")] == ["", "", ""]
    small = derive.obstacle("gguf", replace(world, vocabulary=50304))
    assert small.startswith("a vocabulary of 50304 tokens cannot become a .gguf")
    assert "second layer" in derive.obstacle("st", replace(world, layers=1))
    assert derive.obstacle("pth", replace(world, layers=1, vocabulary=256)) == ""
