from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import file_format, gguf
from pytest_rwkvperf.models import st as st_format
from pytest_rwkvperf.models.gguf_header import read_header
from pytest_rwkvperf.models.hashing import content_hash
from pytest_rwkvperf.models.layouts import gguf_layout
from pytest_rwkvperf.models.synthetic import SyntheticModel

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.models.shapes import Shape
    from pytest_rwkvperf.models.streams import Progress


@pytest.fixture
def written(tmp_path: Path, model: SyntheticModel, quiet: Progress, small_vocabulary: None) -> Path:  # noqa: ARG001
    path = tmp_path / "tiny.gguf"
    gguf.write(path, model, "tiny model", quiet, "")
    return path


def test_a_written_file_reads_back(written: Path, model: SyntheticModel, quiet: Progress) -> None:
    file = read_header(written)
    assert (file.shape, file.quant, file.quantized) == (model.shape, "f16", False)
    assert content_hash(file.weights(), quiet, "") == content_hash(model, quiet, "")
    assert written.stat().st_size <= gguf.size(model.shape)


def test_the_gguf_package_reads_the_same(written: Path, model: SyntheticModel) -> None:
    import gguf as package

    reader = package.GGUFReader(written)
    layout = {entry.name: entry for entry in gguf_layout(model.shape)}
    assert {tensor.name for tensor in reader.tensors} == set(layout)
    for tensor in reader.tensors:
        entry = layout[tensor.name]
        assert tuple(reversed(tensor.shape.tolist())) == entry.shape
        assert tensor.tensor_type.name == {"f16": "F16", "f32": "F32"}[entry.precision]
        expected = np.concatenate([task().reshape(-1) for task in entry.tasks(model)])
        assert (np.asarray(tensor.data).reshape(-1) == expected).all()
        assert tensor.data_offset % 32 == 0


def test_keys_are_those_of_llama_cpps_converter(written: Path, model: SyntheticModel) -> None:
    import gguf as package

    fields = package.GGUFReader(written).fields
    keys = {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}
    arrays = {name: keys.pop(name) for name in ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type")}
    template = keys.pop("tokenizer.chat_template")
    assert keys == {
        "general.architecture": "rwkv7",
        "general.type": "model",
        "general.name": "tiny model",
        "general.size_label": keys["general.size_label"],
        "general.file_type": 1,
        "general.quantization_version": 2,
        "rwkv7.context_length": 1048576,
        "rwkv7.embedding_length": 64,
        "rwkv7.block_count": 2,
        "rwkv7.attention.layer_norm_epsilon": pytest.approx(1e-5),
        "rwkv7.wkv.head_size": 64,
        "rwkv7.attention.decay_lora_rank": 16,
        "rwkv7.attention.iclr_lora_rank": 24,
        "rwkv7.attention.value_residual_mix_lora_rank": 8,
        "rwkv7.attention.gate_lora_rank": 40,
        "rwkv7.feed_forward_length": 256,
        "rwkv7.attention.head_count": 0,
        "tokenizer.ggml.model": "rwkv",
        "tokenizer.ggml.eot_token_id": 261,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
    }
    assert arrays["tokenizer.ggml.tokens"][:5] == ["<s>", "a", "b", "[PAD3]", "[PAD4]"]
    assert len(arrays["tokenizer.ggml.tokens"]) == model.shape.vocabulary
    assert arrays["tokenizer.ggml.token_type"] == [3, 1, 1] + [5] * (model.shape.vocabulary - 3)
    assert "Assistant:" in template


def test_the_world_vocabulary_is_complete() -> None:
    tokens = gguf.world_tokens()
    assert len(tokens) == 65530
    assert tokens[:3] == (b"<s>", rb"\x00", rb"\x01")
    assert tokens[261] == rb"\n\n"
    assert tokens[65529] == b" " * 128


def test_too_small_a_vocabulary_is_refused(tmp_path: Path, quiet: Progress, tiny: Shape) -> None:
    with pytest.raises(ModelError, match=r"128 tokens.*65530"):
        gguf.write(tmp_path / "x.gguf", SyntheticModel("tiny", tiny), "x", quiet, "")


@pytest.mark.parametrize("keep", [4, 23, 24, 100, 1000, -1])
def test_truncated_file_is_refused(keep: int, written: Path) -> None:
    written.write_bytes(written.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"tiny\.gguf.*truncated"):
        read_header(written)


def replaced(path: Path, old: bytes, new: bytes) -> Path:
    raw = path.read_bytes()
    assert old in raw
    assert len(old) == len(new)
    path.write_bytes(raw.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"rwkv7", b"rwkv6", "architecture is 'rwkv6'"),
        (b"blk.1.time_mix_v2.weight", b"blk.1.time_mix_v3.weight", "'blk.1.time_mix_v2.weight' is missing"),
        (b"output_norm.bias", b"output_norm.bibs", "'output_norm.bias' is missing"),
        (b"GGUF\x03", b"GGUF\x63", "version is 99"),
    ],
)
def test_file_that_is_not_rwkv7_is_refused(old: bytes, new: bytes, reason: str, written: Path) -> None:
    with pytest.raises(ModelError, match=reason):
        read_header(replaced(written, old, new))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_headers_are_an_error_or_the_same_model(written: Path, data: st.DataObject) -> None:
    raw = bytearray(written.read_bytes())
    header = min(tensor.start for tensor in read_header(written).tensors.values())
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(4, header - 1))] = data.draw(st.integers(0, 255))
    damaged = written.with_name("damaged.gguf")
    damaged.write_bytes(raw)
    with contextlib.suppress(ModelError):
        assert read_header(damaged).shape.layers == 2


def test_quantized_file_has_its_quants_name(written: Path) -> None:
    import gguf as package

    source = package.GGUFReader(written)
    target = written.with_name("q.gguf")
    writer = package.GGUFWriter(target, "rwkv7")
    writer.add_file_type(package.LlamaFileType.MOSTLY_Q8_0)
    for tensor in source.tensors:
        wide = np.asarray(tensor.data)
        shape = tuple(reversed(tensor.shape.tolist()))
        if tensor.name.endswith("key.weight"):
            kind = package.GGMLQuantizationType.Q8_0
            writer.add_tensor(tensor.name, package.quants.quantize(wide.reshape(shape), kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, wide.reshape(shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = read_header(target)
    assert (file.quant, file.quantized) == ("q8_0", True)
    assert file.tensors["blk.0.channel_mix_key.weight"].nbytes == 256 * 64 // 32 * 34


def test_a_part_of_a_divided_model_is_told_how_to_be_joined(tmp_path: Path) -> None:
    import gguf as package

    part = tmp_path / "model-00002-of-00003.gguf"
    writer = package.GGUFWriter(part, "rwkv7")
    writer.add_uint16("split.no", 1)
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match=rf"{part.name}.*it is part 2 of 3 .*llama-gguf-split --merge"):
        read_header(part)


@pytest.mark.parametrize("format", ["gguf", "st"])
def test_a_file_system_that_maps_nothing_is_told_with_the_files_name(
    format: str,
    written: Path,
    model: SyntheticModel,
    quiet: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = written if format == "gguf" else written.with_name("m.st")
    if format == "st":
        st_format.write(path, model, quiet, "")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(np, "memmap", refuse)
    with pytest.raises(ModelError, match=rf"{path.name}'.*cannot map it \(.*\); copy it to a local disk"):
        file_format.read_header(path)


@pytest.mark.parametrize("width", [32, 96])
@pytest.mark.usefixtures("small_vocabulary")
def test_width_must_be_a_multiple_of_the_head_size(width: int, tmp_path: Path, tiny: Shape) -> None:
    path, shape = tmp_path / "narrow.gguf", replace(tiny, width=width)
    layout = gguf_layout(shape)
    gguf._write_header(path, shape, "narrow", layout, "f16")
    with path.open("ab") as file:
        file.write(bytes(sum(entry.nbytes + 64 for entry in layout)))
    with pytest.raises(ModelError, match=f"its width is {width}, expected a multiple of 64"):
        read_header(path)
