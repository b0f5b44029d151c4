from __future__ import annotations

import copy
import pickletools
import struct
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import pth
from pytest_rwkvperf.models.layouts import pth_layout
from pytest_rwkvperf.models.pth_check import check_directory, stored_tensors
from pytest_rwkvperf.models.shapes import tensor_specs
from pytest_rwkvperf.models.weights import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_rwkvperf.models.streams import Progress
    from pytest_rwkvperf.models.synthetic import SyntheticModel


@pytest.fixture
def written(tmp_path: Path, model: SyntheticModel, quiet: Progress) -> Path:
    path = tmp_path / "tiny.pth"
    pth.write(path, model, pth_layout(model.shape, "bf16"), quiet, "")
    return path


def data_offset(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where an entry's data begins, from its local header."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(30)
    name, extra = map(int, struct.unpack("<HH", header[26:30]))
    return entry.header_offset + 30 + name + extra


def test_storages_hold_the_values_aligned_and_intact(written: Path, model: SyntheticModel) -> None:
    with zipfile.ZipFile(written) as archive:
        assert archive.testzip() is None
        for number, spec in enumerate(tensor_specs(model.shape)):
            entry = archive.getinfo(f"archive/data/{number}")
            values = np.frombuffer(archive.read(entry), DTYPES["bf16"])
            assert (values == model.rows(spec, 0, spec.rows, "bf16").reshape(-1)).all()
            assert data_offset(written, entry) % 64 == 0
            assert entry.compress_type == zipfile.ZIP_STORED


def test_pickle_uses_only_what_torchs_safe_loader_allows(written: Path) -> None:
    with zipfile.ZipFile(written) as archive:
        operations = list(pickletools.genops(archive.read("archive/data.pkl")))
    names = {operation.name for operation, _, _ in operations}
    assert names <= {
        "PROTO", "EMPTY_DICT", "MARK", "BINUNICODE", "GLOBAL", "TUPLE", "BINPERSID", "BININT", "NEWFALSE",
        "EMPTY_TUPLE", "REDUCE", "SETITEMS", "STOP",
    }  # fmt: skip
    assert {argument for operation, argument, _ in operations if operation.name == "GLOBAL"} == {
        "torch._utils _rebuild_tensor_v2",
        "torch BFloat16Storage",
        "collections OrderedDict",
    }


def test_equal_weights_give_equal_files(written: Path, model: SyntheticModel, tmp_path: Path, quiet: Progress) -> None:
    again = tmp_path / "again.pth"
    pth.write(again, model, pth_layout(model.shape, "bf16"), quiet, "")
    assert again.read_bytes() == written.read_bytes()


def test_size_is_close(written: Path, model: SyntheticModel) -> None:
    size = written.stat().st_size
    assert size <= pth.size(model.shape, "bf16") <= size + 512 * len(tensor_specs(model.shape))


def test_entries_beyond_four_gigabytes_are_found(
    tmp_path: Path, model: SyntheticModel, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 30_000)  # as if the file were larger than a classic zip can be
    path = tmp_path / "large.pth"
    pth.write(path, model, pth_layout(model.shape, "bf16"), quiet, "")
    check_directory(path)
    with zipfile.ZipFile(path) as archive:
        last = archive.getinfo(f"archive/data/{len(tensor_specs(model.shape)) - 1}")
        assert data_offset(path, last) % 64 == 0
        assert archive.testzip() is None


@pytest.mark.parametrize("keep", [10, 1000, -1, -100])
def test_truncated_file_is_refused(keep: int, written: Path) -> None:
    written.write_bytes(written.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"tiny\.pth.*truncated"):
        check_directory(written)


def test_other_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match=r"x\.pth.*torch\.save"):
        check_directory(path)


def test_compressed_zip_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(ModelError, match=r"bomb\.pth.*1048576 bytes"):
        check_directory(path)


def rebuilt(path: Path, change: Callable[[dict[str, bytes]], object], **options: object) -> Path:
    """The file with changed entries, stored as torch stores them."""
    with zipfile.ZipFile(path) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", **options) as target:  # type: ignore[call-overload]
        for name, data in entries.items():
            target.writestr(zipfile.ZipInfo(name), data)
    return path


def test_tensors_are_listed_without_unpickling(written: Path, model: SyntheticModel) -> None:
    stored = stored_tensors(written)
    assert {name: tensor.shape for name, tensor in stored.items()} == {
        spec.name: spec.shape for spec in tensor_specs(model.shape)
    }
    assert {tensor.precision for tensor in stored.values()} == {"bf16"}


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "archive/../../evil",
        "/etc/passwd",
        "archive\\data\\7",
        "archive/data/../x",
        "archive/code/model.py",
        "archive/constants.pkl",
        "archive/data/x",
        "archive/data/1/2",
        "C:/x",
        "other/data/1",
    ],
)
def test_an_entry_that_torch_never_writes_is_refused(name: str, written: Path) -> None:
    with pytest.raises(ModelError, match=r"tiny\.pth.*never"):
        check_directory(rebuilt(written, lambda entries: entries.update({name: b"x"})))


def test_entry_name_with_a_zero_byte_is_refused(written: Path) -> None:
    rebuilt(written, lambda entries: entries.update({"archive/data/999?pkl": b"x"}))
    written.write_bytes(written.read_bytes().replace(b"999?pkl", b"999\0pkl"))
    with pytest.raises(ModelError, match=r"tiny\.pth.*never"):
        check_directory(written)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_entry_is_refused(written: Path) -> None:
    with zipfile.ZipFile(written, "a") as archive:
        archive.writestr("archive/data.pkl", b"another")
    with pytest.raises(ModelError, match="one entry twice"):
        check_directory(written)


def test_entries_that_overlap_are_refused(written: Path) -> None:
    """A bomb that needs no compression: many directory entries over the same bytes."""
    raw = written.read_bytes()
    with zipfile.ZipFile(written) as archive:
        large = max(archive.infolist(), key=lambda entry: entry.file_size)
        for number in range(900, 903):
            twin = copy.copy(large)
            twin.filename = f"archive/data/{number}"
            archive.filelist.append(twin)
        entries = archive.filelist
    with zipfile.ZipFile(written.with_name("bomb.pth"), "w") as target:
        assert target.fp is not None
        target.fp.write(raw)
        target.start_dir = len(raw)
        target.filelist = entries
        target._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"bomb\.pth.*unpacks to"):
        check_directory(written.with_name("bomb.pth"))


@pytest.mark.parametrize(
    ("before", "behind", "reason"),
    [
        (b"#!/bin/sh\n", b"", "precede"),
        (b"", b"PK", "bytes follow|truncated"),
        (b"", b"x" * 100, "bytes follow|truncated"),
    ],
)
def test_bytes_around_the_zip_are_refused(before: bytes, behind: bytes, reason: str, written: Path) -> None:
    written.write_bytes(before + written.read_bytes() + behind)
    with pytest.raises(ModelError, match=reason):
        check_directory(written)


def test_zip_comment_is_refused(written: Path) -> None:
    with zipfile.ZipFile(written, "a") as archive:
        archive.comment = b"hello"
    with pytest.raises(ModelError, match="bytes follow"):
        check_directory(written)


@pytest.mark.parametrize(
    ("entry", "data", "reason"),
    [
        ("archive/data.pkl", b"cos\nsystem\n(X\x04\0\0\0truetR.", r"'os\.system'.*not loaded"),
        ("archive/data.pkl", b"garbage", "cannot be decoded|opcode"),
        ("archive/data.pkl", bytes(5 << 20), "more than any model's"),
        ("archive/data/0", b"short", r"'emb\.weight' needs 16384 bytes"),
        ("archive/byteorder", b"big", "little-endian"),
    ],
)
def test_contents_are_checked_before_torch_loads_them(entry: str, data: bytes, reason: str, written: Path) -> None:
    with pytest.raises(ModelError, match=rf"tiny\.pth.*({reason})"):
        stored_tensors(rebuilt(written, lambda entries: entries.update({entry: data})))


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_are_an_error_or_a_listing(seed: int, written: Path, model: SyntheticModel) -> None:
    """Damage in the directory and in the small entries; the values themselves are anyone's."""
    random = np.random.default_rng(seed)
    raw = bytearray(written.read_bytes())
    for _ in range(3):
        place = random.integers(0, 2_000) if random.random() < 0.5 else len(raw) - 1 - random.integers(0, 4_000)
        raw[place] = random.integers(0, 256)
    written.write_bytes(raw)
    try:
        found = stored_tensors(written)
    except ModelError as error:
        assert "tiny.pth" in str(error)  # noqa: PT017 - either is right
    else:
        assert len(found) <= len(tensor_specs(model.shape))
