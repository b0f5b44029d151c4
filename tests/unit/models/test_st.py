from __future__ import annotations

import contextlib
import itertools
import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import st
from pytest_rwkvperf.models.hashing import content_hash
from pytest_rwkvperf.models.layouts import st_layout
from pytest_rwkvperf.models.shapes import tensor_specs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.streams import Progress
    from pytest_rwkvperf.models.synthetic import SyntheticModel
    from pytest_rwkvperf.models.weights import MappedWeights


@pytest.fixture
def written(tmp_path: Path, model: SyntheticModel, quiet: Progress) -> Path:
    path = tmp_path / "tiny.st"
    st.write(path, model, quiet, "")
    return path


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The file with a changed header and the same data."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    return path


def test_a_written_file_reads_back(written: Path, model: SyntheticModel, quiet: Progress) -> None:
    header = st.read_header(written)
    assert (header.shape, header.quant) == (model.shape, "f16")
    assert content_hash(header.weights(), quiet, "") == content_hash(model, quiet, "")
    assert written.stat().st_size == st.size(model.shape)


def test_the_safetensors_package_reads_the_same(written: Path, model: SyntheticModel) -> None:
    tensors = pytest.importorskip("safetensors.numpy").load_file(written)
    assert set(tensors) == {spec.name for spec in tensor_specs(model.shape)}
    for spec in tensor_specs(model.shape):
        expected = model.rows(spec, 0, spec.rows, "f16").reshape(spec.shape)
        turned = spec.name.rpartition(".")[2] in {"w1", "w2", "a1", "a2", "g1", "g2", "v1", "v2"}
        assert (tensors[spec.name] == (expected.T if turned else expected)).all()


def test_data_begins_aligned_and_is_without_gaps(written: Path) -> None:
    raw = written.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    offsets = [entry["data_offsets"] for entry in json.loads(raw[8 : 8 + length]).values()]
    assert (8 + length) % 64 == 0
    assert offsets[0][0] == 0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(offsets))
    assert 8 + length + offsets[-1][1] == len(raw)


@pytest.mark.parametrize("precision", ["bf16", "f32"])
def test_other_precisions_can_be_read(
    precision: Precision,
    tmp_path: Path,
    make_weights: Callable[[Precision, int], MappedWeights],
    quiet: Progress,
) -> None:
    weights = make_weights(precision, 0)
    header, data = {}, b""
    for entry in st_layout(weights.shape):
        spec = entry.parts[0]
        values = weights.rows(spec, 0, spec.rows).reshape(spec.shape)
        raw = (values.T if entry.layout == "transposed" else values).tobytes()
        kind = {"bf16": "BF16", "f32": "F32"}[precision]
        header[entry.name] = {"dtype": kind, "shape": entry.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path = tmp_path / "wide.st"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    found = st.read_header(path)
    assert found.precision == precision
    assert content_hash(found.weights(), quiet, "") == content_hash(weights, quiet, "")


@pytest.mark.parametrize("keep", [0, 3, 8, 9, 200, -1])
def test_truncated_file_is_refused(keep: int, written: Path) -> None:
    raw = written.read_bytes()
    written.write_bytes(raw[:keep])
    with pytest.raises(ModelError, match=r"tiny\.st.*(truncated|damaged)"):
        st.read_header(written)


def test_untransposed_matrices_are_refused(written: Path) -> None:
    def turn_back(header: dict[str, Any]) -> None:
        header["blocks.0.att.w1"]["shape"].reverse()

    with pytest.raises(ModelError, match="not transposed"):
        st.read_header(rewritten(written, turn_back))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}, "I64"),
        ({"dtype": "F16", "shape": [2], "data_offsets": [0, 5]}, "cannot fill"),
        ({"dtype": "F16", "shape": [-2], "data_offsets": [0, 4]}, "malformed"),
        ({"dtype": "F16", "shape": [2.0], "data_offsets": [0, 4]}, "malformed"),
        ({"dtype": "F16", "shape": [1 << 40], "data_offsets": [0, 1 << 41]}, "truncated"),
        ({"dtype": "F16", "shape": [0, 1 << 62, 1 << 62], "data_offsets": [0, 0]}, "has shape"),
        ({"dtype": "F16", "shape": [10**30, 0], "data_offsets": [0, 0]}, "has shape"),
        ({"dtype": ["F16"], "shape": [2], "data_offsets": [0, 4]}, "type"),
        ({"dtype": "F16", "shape": [2]}, "malformed"),
        ({"dtype": "F16", "shape": None, "data_offsets": [0, 4]}, "malformed"),
        ({"dtype": "F16", "shape": [2], "data_offsets": 4}, "malformed"),
        ("F16", "malformed"),
        (None, "malformed"),
    ],
)
def test_a_malformed_entry_is_refused(entry: object, reason: str, written: Path) -> None:
    with pytest.raises(ModelError, match=reason):
        st.read_header(rewritten(written, lambda header: header.update({"ln_out.bias": entry})))


@pytest.mark.parametrize("text", [b"[1, 2]", b"{nope", b"\xff\xfe", b"[" * 100_000])
def test_header_must_be_a_json_object(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.st"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ModelError, match="header"):
        st.read_header(path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(strategies.data())
def test_damaged_headers_are_an_error_or_the_same_model(written: Path, data: strategies.DataObject) -> None:
    raw = bytearray(written.read_bytes())
    length = struct.unpack("<Q", raw[:8])[0]
    for _ in range(data.draw(strategies.integers(1, 8))):
        raw[data.draw(strategies.integers(0, 7 + length))] = data.draw(strategies.integers(0, 255))
    damaged = written.with_name("damaged.st")
    damaged.write_bytes(raw)
    with contextlib.suppress(ModelError):
        assert st.read_header(damaged).shape.layers == 2
