"""Reading the weights that an engine computes with; the gguf package dequantizes block formats."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from pytest_rwkvperf.models import derive, gguf
from pytest_rwkvperf.models.header import TensorEntry
from pytest_rwkvperf.models.layouts import gguf_layout
from pytest_rwkvperf.models.shapes import tensor_specs
from pytest_rwkvperf.models.weights import DTYPES
from pytest_rwkvperf.oracle import dequantized

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.header import MappedHeader
    from pytest_rwkvperf.models.synthetic import SyntheticModel

KIND = GGMLQuantizationType.Q8_0


@pytest.mark.parametrize("kind", ["st", "gguf"])
def test_plain_files_are_read_as_they_are(
    kind: Format, model: SyntheticModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "world_tokens", lambda: (b"<s>", b"a"))
    path = tmp_path / f"model.{kind}"
    derive.write(model, path, kind, "tiny", lambda _sentence, _fraction: None)
    read = dequantized.read(path, kind)
    for spec in tensor_specs(model.shape):
        mine, own = (one.rows(spec, 0, spec.rows, "f32").reshape(-1) for one in (read, model))
        np.testing.assert_array_equal(mine, own)


@pytest.fixture
def quantized(model: SyntheticModel) -> MappedHeader:
    """A `.gguf` in memory: feed-forward and head in blocks, the rest plain, as llama.cpp's quantizer writes it."""

    def stored() -> Iterator[tuple[TensorEntry, Any]]:
        for entry in gguf_layout(model.shape):
            values = np.concatenate([np.ravel(task()) for task in entry.tasks(model)]).reshape(entry.shape)
            if "channel_mix_key" in entry.name or "channel_mix_value" in entry.name or entry.name == "output.weight":
                kind, held = KIND.name.lower(), quantize(values.astype(np.float32), KIND)
            else:
                kind, held = entry.precision, values.astype(DTYPES[entry.precision])
            data = held.reshape(-1).view(np.uint8)
            yield TensorEntry(entry.name, kind, entry.shape, 0, data.nbytes), data

    return cast("MappedHeader", SimpleNamespace(shape=model.shape, stored=stored, layout=gguf_layout(model.shape)))


def test_only_packed_matrices_are_dequantized(model: SyntheticModel, quantized: MappedHeader) -> None:
    read = dequantized.DequantizedWeights(quantized)
    packed = 0
    for spec in tensor_specs(model.shape):
        mine = read.rows(spec, 0, spec.rows, "f32").reshape(-1)
        own = model.rows(spec, 0, spec.rows, "f32").reshape(-1)
        if ".ffn.key" in spec.name or ".ffn.value" in spec.name or spec.name == "head.weight":
            own = dequantize(quantize(own.reshape(spec.shape), KIND), KIND).reshape(-1)
            packed += 1
        np.testing.assert_array_equal(mine, own)
    assert packed == 1 + 2 * model.shape.layers


def test_rows_of_a_packed_matrix(model: SyntheticModel, quantized: MappedHeader) -> None:
    read = dequantized.DequantizedWeights(quantized)
    spec = tensor_specs(model.shape)[-1]
    whole = read.rows(spec, 0, spec.rows)
    np.testing.assert_array_equal(read.rows(spec, 7, 19), whole[7:19])
    assert read.rows(spec, 7, 19, "f16").dtype == np.float16
