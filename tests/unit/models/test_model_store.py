from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import derive, model_store, pth
from pytest_rwkvperf.models.file_format import detect_format, read_header
from pytest_rwkvperf.models.hashing import content_hash
from pytest_rwkvperf.models.layouts import pth_layout
from pytest_rwkvperf.models.model import Model, ModelFile
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.models.shapes import SHAPES, Shape
from pytest_rwkvperf.models.synthetic import SyntheticModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.checked_weights import Written
    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.streams import Progress
    from pytest_rwkvperf.models.weights import MappedWeights

pytestmark = pytest.mark.usefixtures("small_vocabulary")


class ScriptedTools:
    """Replaces the worker processes: the content of `.pth` files is given, and the gguf package quantizes."""

    def __init__(self, shape: Shape, weights: SyntheticModel) -> None:
        self.shape = shape
        self.weights = weights
        self.calls: list[str] = []
        self.wrong_quant = False

    def inspect_pth(self, path: Path) -> ModelFile:
        self.calls.append("inspect")
        return ModelFile(path, "pth", "ab" * 32, self.shape, "bf16")

    def convert_pth(
        self,
        source: Path,
        target: Path,
        format: Format,
        precision: Precision | None = None,
    ) -> Written:
        self.calls.append(f"convert {format}")
        return derive.write(self.weights, target, format, source.stem, lambda _sentence, _fraction: None, precision)

    def quantize_gguf(self, source: Path, target: Path, quant: str) -> None:
        import gguf as package

        self.calls.append(f"quantize {quant}")
        writer = package.GGUFWriter(target, "rwkv7")
        writer.add_file_type(
            package.LlamaFileType.MOSTLY_Q4_0 if self.wrong_quant else package.LlamaFileType.MOSTLY_Q8_0
        )
        for tensor in package.GGUFReader(source).tensors:
            values = np.asarray(tensor.data).reshape(tuple(reversed(tensor.shape.tolist())))
            kind = package.GGMLQuantizationType.Q8_0
            if tensor.name.endswith("key.weight"):
                writer.add_tensor(tensor.name, package.quants.quantize(values, kind), raw_dtype=kind)
            else:
                writer.add_tensor(tensor.name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


@pytest.fixture
def tools(tiny: Shape, model: SyntheticModel) -> ScriptedTools:
    return ScriptedTools(tiny, model)


@pytest.fixture
def synthetic(monkeypatch: pytest.MonkeyPatch, tiny: Shape) -> str:
    """A reference to a synthetic model of the tiny shape."""
    monkeypatch.setattr("pytest_rwkvperf.models.synthetic.SHAPES", {**SHAPES, "tiny": tiny})
    return "synthetic:tiny"


class Fixture:
    """A model store on scripted tools; a new one for each call, so that only the cache is remembered."""

    def __init__(self, tools: ScriptedTools, cache: Path) -> None:
        self.tools = tools
        self.cache = cache
        self.reports: list[str] = []

    def progress(self, sentence: str, _fraction: float) -> None:
        self.reports.append(sentence)

    def store(self) -> ModelStore:
        return ModelStore(self.tools, self.progress, self.cache)

    def resolve(self, reference: object) -> Model:
        return self.store().resolve(str(reference))

    def file(self, model: Model, kind: Format, quant: str | None = None) -> ModelFile:
        return self.store().file_for(model, kind, quant)

    def leftovers(self) -> list[Path]:
        return [path for path in self.cache.rglob("*") if path.name.endswith(".tmp")]


@pytest.fixture
def place(tools: ScriptedTools, tmp_path: Path) -> Fixture:
    return Fixture(tools, tmp_path / "cache")


@pytest.fixture
def user_file(tmp_path: Path, quiet: Progress) -> Callable[[str], Path]:
    """A user's file of the tiny shape in any format, in a folder with a space and non-ASCII letters."""

    def make(kind: str) -> Path:
        folder = tmp_path / "mein Modell 模型"
        folder.mkdir(exist_ok=True)
        path = folder / f"own.{kind}"
        tiny = Shape(layers=2, width=64, rank_w=16, rank_a=24, rank_v=8, rank_g=40, vocabulary=128)
        derive.write(SyntheticModel("own", tiny, 5), path, kind, "own", quiet)  # type: ignore[arg-type]
        return path

    return make


class TestSynthetic:
    def test_all_formats_have_the_models_hash(self, synthetic: str, place: Fixture) -> None:
        model = place.resolve(synthetic)
        assert (model.name, model.shape.layers) == (synthetic, 2)
        files = [place.file(model, kind) for kind in ("pth", "st", "gguf")]
        assert {file.content_hash for file in files} == {model.content_hash}
        assert [file.quant for file in files] == ["bf16", "f16", "f16"]
        assert [file.path.suffix for file in files] == [".pth", ".st", ".gguf"]
        assert all(file.size_bytes > 0 for file in files)
        assert place.tools.calls == []
        assert place.leftovers() == []

    def test_second_time_nothing_is_computed(
        self, synthetic: str, place: Fixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = place.resolve(synthetic)
        files = [place.file(model, "st"), place.file(model, "gguf", "q8_0")]

        def never(*_arguments: object) -> None:
            pytest.fail("computed again")

        monkeypatch.setattr(SyntheticModel, "rows", never)
        monkeypatch.setattr(place.tools, "quantize_gguf", never)
        monkeypatch.setattr(model_store, "stored_hash", never)
        assert place.resolve(synthetic) == model
        assert [place.file(model, "st"), place.file(model, "gguf", "q8_0")] == files

    def test_another_seed_is_another_model(self, synthetic: str, place: Fixture) -> None:
        model, other = place.resolve(synthetic), place.resolve(f"{synthetic}:3")
        assert other.name == "synthetic:tiny:3"
        assert other.content_hash != model.content_hash
        assert place.file(other, "st").path != place.file(model, "st").path

    def test_truncated_derived_file_is_made_again(self, synthetic: str, place: Fixture) -> None:
        model = place.resolve(synthetic)
        file = place.file(model, "st")
        whole = file.path.read_bytes()
        file.path.write_bytes(whole[:-10])
        assert place.file(model, "st") == file
        assert file.path.read_bytes() == whole

    def test_missing_record_is_made_again(self, synthetic: str, place: Fixture) -> None:
        model = place.resolve(synthetic)
        file = place.file(model, "st")
        record = file.path.with_name(f"{file.path.name}.json")
        record.unlink()
        assert place.file(model, "st") == file
        assert record.exists()

    def test_cache_can_be_moved(self, synthetic: str, place: Fixture, tmp_path: Path) -> None:
        model = place.resolve(synthetic)
        place.file(model, "st")
        place.cache = place.cache.rename(tmp_path / "moved")
        assert place.file(model, "st").path.is_relative_to(tmp_path / "moved")

    def test_interrupted_write_leaves_no_file(
        self, synthetic: str, place: Fixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = place.resolve(synthetic)

        def interrupted(_self: object, spec: object, *_arguments: object) -> None:
            raise KeyboardInterrupt(str(spec))

        with monkeypatch.context() as patch:
            patch.setattr(SyntheticModel, "rows", interrupted)
            with pytest.raises(KeyboardInterrupt):
                place.file(model, "st")
        assert not list(place.cache.rglob("*.st"))
        assert place.leftovers() == []
        assert read_header(place.file(model, "st").path).shape == model.shape


class TestUsersFile:
    def test_st_is_used_as_it_is_and_converted(self, user_file: Callable[[str], Path], place: Fixture) -> None:
        path = user_file("st")
        model = place.resolve(path)
        assert (model.name, place.file(model, "st").path) == ("own", path)
        made = place.file(model, "pth")
        assert (made.quant, made.content_hash) == ("f16", model.content_hash)
        made = place.file(model, "gguf")
        assert (made.quant, made.content_hash) == ("f16", model.content_hash)
        assert place.file(model, "gguf", "Q8_0").quant == "q8_0"
        assert place.tools.calls == ["quantize q8_0"]

    def test_float32_st_is_rounded_for_web_rwkv(
        self, tmp_path: Path, place: Fixture, make_weights: Callable[[Precision, int], MappedWeights]
    ) -> None:
        weights = make_weights("f32", 0)
        source = Model(
            "wide", "cd" * 32, weights.shape, ModelFile(tmp_path / "wide.st", "st", "cd" * 32, weights.shape, "f32")
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ModelStore, "_mapped", lambda _store, _file: weights)
            made = place.file(source, "st")
        assert made.quant == "f16"
        assert made.path != tmp_path / "wide.st"
        assert made.content_hash != source.content_hash  # other numbers, and it says so

    def test_pth_is_only_opened_by_the_tools(self, user_file: Callable[[str], Path], place: Fixture) -> None:
        path = user_file("pth")
        model = place.resolve(path)
        assert place.file(model, "pth").path == path
        assert place.file(model, "st").format == "st"
        assert place.file(model, "gguf", "q8_0").quant == "q8_0"
        assert place.resolve(path) == model
        assert place.tools.calls == ["inspect", "convert st", "convert gguf", "quantize q8_0"]

    def test_unquantized_gguf_is_used_and_quantized(self, user_file: Callable[[str], Path], place: Fixture) -> None:
        path = user_file("gguf")
        model = place.resolve(path)
        assert place.file(model, "gguf").path == place.file(model, "gguf", "f16").path == path
        assert place.file(model, "gguf", "q8_0").quant == "q8_0"
        assert place.tools.calls == ["quantize q8_0"]

    def test_unquantized_gguf_is_converted_exactly(self, user_file: Callable[[str], Path], place: Fixture) -> None:
        model = place.resolve(user_file("gguf"))
        made = [place.file(model, kind) for kind in ("pth", "st")]
        assert {file.content_hash for file in made} == {model.content_hash}
        assert [file.quant for file in made] == ["f16", "f16"]
        assert place.tools.calls == []

    @pytest.mark.parametrize("precision", ["f32", "bf16"])
    def test_gguf_in_another_precision_is_rounded_to_f16(
        self,
        precision: Precision,
        tmp_path: Path,
        place: Fixture,
        make_weights: Callable[[Precision, int], MappedWeights],
        quiet: Progress,
    ) -> None:
        path = tmp_path / f"own-{precision}.gguf"
        derive.write(make_weights("f32", 1), path, "gguf", "own", quiet, precision)
        model = place.resolve(path)
        assert place.file(model, "gguf").path == path
        assert place.file(model, "gguf", "f16").quant == "f16"
        assert any("were rounded to nearest even" in reports for reports in place.reports)
        assert place.file(model, "st").quant == "f16"
        assert place.file(model, "pth").content_hash == model.content_hash

    def test_quantized_gguf_serves_only_its_quant(self, user_file: Callable[[str], Path], place: Fixture) -> None:
        path = user_file("gguf").with_name("packed.gguf")
        place.tools.quantize_gguf(user_file("gguf"), path, "q8_0")
        model = place.resolve(path)
        assert place.file(model, "gguf").path == place.file(model, "gguf", "q8_0").path == path
        with pytest.raises(ModelError, match=r"packed\.gguf.*quantized as q8_0.*alone, not q4_0"):
            place.file(model, "gguf", "q4_0")

    def test_the_hash_is_kept_until_the_file_changes(
        self, user_file: Callable[[str], Path], place: Fixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = user_file("st")
        counted: list[int] = []

        def counting(*arguments: object) -> str:
            counted.append(1)
            return content_hash(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(model_store, "content_hash", counting)
        before = place.resolve(path)
        assert place.resolve(path) == before
        assert len(counted) == 1
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
        os.utime(path, ns=(1, 1))
        assert place.resolve(path).content_hash != before.content_hash
        assert len(counted) == 2

    def test_a_copy_has_the_same_hash_and_the_same_derived_files(
        self, user_file: Callable[[str], Path], place: Fixture
    ) -> None:
        path = user_file("st")
        copy = path.with_name("copy.safetensors")
        shutil.copy(path, copy)
        first, second = place.resolve(path), place.resolve(copy)
        assert place.file(first, "gguf") == place.file(second, "gguf")

    def test_a_relative_path_is_found(
        self, user_file: Callable[[str], Path], place: Fixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = user_file("st")
        monkeypatch.chdir(path.parent)
        assert place.file(place.resolve("own.st"), "st").path == path


class TestRefused:
    @pytest.mark.parametrize("reference", ["synthetic", "llama", ""])
    def test_unknown_reference_names_what_is_allowed(self, reference: str, place: Fixture) -> None:
        with pytest.raises(
            ModelError, match=r"\.pth, \.st or \.gguf file, synthetic:SHAPE.*hf:OWNER.*rwkv7-g1-2\.9b|is not a file"
        ):
            place.resolve(reference)

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("a.pth", b"", "empty"),
            ("a.gguf", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
            ("a.st", b"<!DOCTYPE html><html>", "web page"),
            ("a.pth", b"GGUF\x03\0\0\0" + bytes(40), r"named like a \.pth file but its content is \.gguf"),
            ("a.gguf", b"PK\x03\x04" + bytes(40), r"content is \.pth"),
            ("a.pth", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "before version 1.6"),
            ("a.bin", b"\x7fELF" + bytes(60), "not a .pth, .st or .gguf"),
            ("a.st", b"PK", "not a .pth, .st or .gguf"),
        ],
    )
    def test_file_that_is_not_a_model_says_what_it_is(
        self, name: str, content: bytes, reason: str, tmp_path: Path, place: Fixture
    ) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=reason) as caught:
            place.resolve(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert place.tools.calls == []

    def test_header_length_that_looks_like_markup_is_a_header(self, tmp_path: Path) -> None:
        path = tmp_path / "a.st"
        path.write_bytes((0x3C20).to_bytes(8, "little") + b"{" + bytes(60))  # the length begins with " <"
        assert detect_format(path) == "st"

    @pytest.mark.parametrize(
        ("reference", "says"),
        [
            ("~nobody-of-this-name/model.pth", "home directory"),
            (f"{'x' * 5000}.pth", "too long"),
            ("loop.pth", "loop"),
            ("model\0.pth", "null"),
        ],
    )
    def test_impossible_path(
        self, reference: str, says: str, place: Fixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        if os.name == "posix":
            Path("loop.pth").symlink_to("loop.pth")
        with pytest.raises(ModelError, match=f"is not a usable path: (?s:.*){says}|does not exist"):
            place.resolve(reference)

    @pytest.mark.skipif(os.name == "nt", reason="links need rights there")
    def test_link_of_a_hub_cache_keeps_its_name(self, place: Fixture, tmp_path: Path) -> None:
        blob, link = tmp_path / "blobs" / ("ab" * 32), tmp_path / "snapshots" / "rwkv7-g1.pth"
        for path in (blob, link):
            path.parent.mkdir()
        pth.write(blob, place.tools.weights, pth_layout(place.tools.shape, "bf16"), place.progress, "writing")
        link.symlink_to(blob)
        model = place.resolve(link)
        assert isinstance(model.source, ModelFile)
        assert (model.name, model.source.path) == ("rwkv7-g1", link)

    def test_a_missing_file(self, tmp_path: Path, place: Fixture) -> None:
        with pytest.raises(ModelError, match=r"absent\.pth' does not exist; name a \.pth, "):
            place.resolve(tmp_path / "absent.pth")

    def test_a_folder(self, tmp_path: Path, place: Fixture) -> None:
        with pytest.raises(ModelError, match="is not a file"):
            place.resolve(tmp_path)

    def test_format_without_quants(self, synthetic: str, place: Fixture) -> None:
        with pytest.raises(ModelError, match=r"q8_0.*\.st"):
            place.file(place.resolve(synthetic), "st", "q8_0")

    @pytest.mark.parametrize("quant", ["", "../x", "q8 0", "Q" * 40])
    def test_invalid_quant_name(self, quant: str, synthetic: str, place: Fixture) -> None:
        with pytest.raises(ModelError, match=r"not the name of a \.gguf quant"):
            place.file(place.resolve(synthetic), "gguf", quant)

    def test_tool_that_writes_another_quant_is_detected(self, synthetic: str, place: Fixture) -> None:
        place.tools.wrong_quant = True
        with pytest.raises(ModelError, match=r"become q8_0.*is q4_0"):
            place.file(place.resolve(synthetic), "gguf", "q8_0")
        assert not list(place.cache.rglob("*q8_0*.gguf"))
        assert place.leftovers() == []

    def test_failing_tool_leaves_no_file(
        self, user_file: Callable[[str], Path], place: Fixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_source: Path, target: Path, *_how: object) -> None:
            target.write_bytes(b"half")
            raise ModelError("the worker died")

        model = place.resolve(user_file("pth"))
        monkeypatch.setattr(place.tools, "convert_pth", fail)
        with pytest.raises(ModelError, match="the worker died"):
            place.file(model, "st")
        assert not list(place.cache.rglob("*.st"))
        assert place.leftovers() == []


def test_model_file_survives_json(tmp_path: Path, tiny: Shape) -> None:
    file = ModelFile(tmp_path / "模型.st", "st", "00" * 32, tiny, "f16")
    assert ModelFile.from_json(file.to_json()) == file


def test_derived_gguf_has_the_models_name(synthetic: str, place: Fixture) -> None:
    import gguf as package

    file = place.file(place.resolve(synthetic), "gguf")
    field = package.GGUFReader(file.path).get_field("general.name")
    assert field is not None
    assert field.contents() == "synthetic tiny"
    assert read_header(file.path).shape.vocabulary == 128


@pytest.mark.skipif(os.name == "nt", reason="names of files are text on Windows")
def test_undecodable_file_name_gives_a_printable_model_name(place: Fixture, user_file: Callable[[str], Path]) -> None:
    odd = user_file("st").rename(place.cache.parent / b"m\xff\x1b[2J.st".decode(errors="surrogateescape"))
    model = place.resolve(odd)
    assert model.name == "m\\udcff\\x1b[2J"
    assert place.file(model, "st").path == odd
    assert place.file(model, "gguf").size_bytes > 0
