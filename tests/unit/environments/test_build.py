"""An environment is complete or absent, and is made once."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.environments import build, kept, requirements

if TYPE_CHECKING:
    from pytest_rwkvperf.environments.requirements import Requirement

METADATA = "Metadata-Version: 2.1\nName: rwkvperf-sample\nVersion: 1.0\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "cache", lambda: tmp_path / "cache")


@pytest.fixture
def sample(tmp_path: Path) -> Requirement:
    """A wheel with one module."""
    path = tmp_path / "rwkvperf_sample-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rwkvperf_sample.py", "VALUE = 1\n")
        archive.writestr("rwkvperf_sample-1.0.dist-info/METADATA", METADATA)
        archive.writestr("rwkvperf_sample-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("rwkvperf_sample-1.0.dist-info/RECORD", "")
    return requirements.wheel(path)


def test_it_has_what_was_asked_and_everything_of_this_one_and_is_made_once(sample: Requirement) -> None:
    lines: list[str] = []
    python = build.python_of([sample], lines.append)
    code = "import rwkvperf_sample, pytest; print(rwkvperf_sample.VALUE)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr
    assert len(lines) == 1
    assert build.python_of([sample], lines.append) == python
    assert len(lines) == 1


def test_of_more_than_the_limit_the_one_used_last_and_those_in_use_are_kept(
    sample: Requirement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kept.VARIABLE, "1")
    monkeypatch.setattr(kept, "_used", {})
    lines: list[str] = []
    old, held = build.location() / "old", build.location() / "held"
    for folder in (old, held):
        folder.mkdir(parents=True)
        kept.use(folder)
        os.utime(folder / "in-use", (0, 0))
    os.close(kept._used.pop(old))
    python = build.python_of([sample], lines.append)
    assert Path(python).exists()
    assert held.is_dir()
    assert not old.exists()
    assert lines[-1] == "removed environments that were not used lately: 1 (more than RWKVPERF_KEPT_BUILDS=1)"


def test_one_that_cannot_be_made_is_absent_and_its_log_is_kept(tmp_path: Path) -> None:
    broken = tmp_path / "rwkvperf_sample-1.0-py3-none-any.whl"
    broken.write_bytes(b"no zip")
    requirement = requirements.wheel(broken)
    with pytest.raises(build.BuildError, match=r"(?s)cannot be installed: .*everything that pip printed: .*\.log"):
        build.python_of([requirement], lambda _: None)
    folder = build.location() / build.key_of([requirement])
    assert not folder.exists()
    assert folder.with_suffix(".log").exists()


def test_compilers_settings_are_part_of_the_key(sample: Requirement, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.key_of([sample])
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_NATIVE=OFF")
    assert build.key_of([sample]) != before
