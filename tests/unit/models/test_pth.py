from __future__ import annotations

import pickletools
import struct
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_rwkvperf.errors import ModelError
from pytest_rwkvperf.models import pth
from pytest_rwkvperf.models.convert import pth_layout
from pytest_rwkvperf.models.shapes import tensor_specs
from pytest_rwkvperf.models.weights import DTYPES

if TYPE_CHECKING:
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


def test_the_pickle_uses_what_torchs_safe_loader_allows_and_nothing_else(written: Path) -> None:
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


def test_the_size_is_announced_closely(written: Path, model: SyntheticModel) -> None:
    size = written.stat().st_size
    assert size <= pth.size(model.shape, "bf16") <= size + 512 * len(tensor_specs(model.shape))


def test_entries_beyond_four_gigabytes_are_found(
    tmp_path: Path, model: SyntheticModel, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 30_000)  # as if the file were larger than a classic zip can be
    path = tmp_path / "large.pth"
    pth.write(path, model, pth_layout(model.shape, "bf16"), quiet, "")
    pth.check_directory(path)
    with zipfile.ZipFile(path) as archive:
        last = archive.getinfo(f"archive/data/{len(tensor_specs(model.shape)) - 1}")
        assert data_offset(path, last) % 64 == 0
        assert archive.testzip() is None


def test_a_good_directory_passes(written: Path) -> None:
    pth.check_directory(written)


@pytest.mark.parametrize("keep", [10, 1000, -1, -100])
def test_a_truncated_file_says_so(keep: int, written: Path) -> None:
    written.write_bytes(written.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"tiny\.pth.*truncated"):
        pth.check_directory(written)


def test_a_zip_that_torch_did_not_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match=r"x\.pth.*torch\.save"):
        pth.check_directory(path)


def test_a_compressed_zip_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(ModelError, match=r"bomb\.pth.*1048576 bytes"):
        pth.check_directory(path)
