"""What a run is given and cannot use: model files that lie, engines that are not there, baselines it may not write."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.store import baseline as baselines
from pytest_rwkvperf.store import files
from tests.faults.disks import small_disk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.scene import Stage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="scenes are Linux's")


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.system, (f"touch {self.marker}",)


def hostile(path: Path, marker: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Touches(marker), 2))
        archive.writestr("model/version", "3\n")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("hostile.pth", b"", "posix.system"),
        ("pointer.gguf", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
        ("mislabelled.st", b"GGUF\x03\0\0\0", "its content is .gguf"),
        ("lying.st", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "lying.st"),
    ],
    ids=["hostile", "pointer", "mislabelled", "endless"],
)
def test_a_model_file_that_lies_is_a_usage_error_that_names_it(
    stage: Stage, name: str, content: bytes, told: str
) -> None:
    scene = stage()
    model, marker = scene.folder / name, scene.backstage / "ran"
    if content:
        model.write_bytes(content)
    else:
        hostile(model, marker)
    seen = scene.run(f"--rwkv-model={model}")
    assert seen.code == pytest.ExitCode.USAGE_ERROR, seen.text
    assert name in seen.text
    assert told in seen.sentence
    assert "Traceback" not in seen.text
    assert not marker.exists()


def test_an_engine_that_is_not_there_is_an_error_by_name(stage: Stage) -> None:
    seen = stage().run(fault="missing@versions")
    assert seen.code == pytest.ExitCode.USAGE_ERROR, seen.text
    assert "pip install scripted-native" in seen.sentence


def test_another_machines_baseline_is_none_and_the_fields_that_differ_are_named(stage: Stage) -> None:
    scene = stage()
    stored = baselines.loads(scene.path.read_text("utf-8"), scene.path)
    other = replace(stored.fingerprint, cores=stored.fingerprint.cores + 62)
    scene.path.unlink()
    path = files.path_for(scene.path.parent, other)
    path.write_text(baselines.dumps(replace(stored, fingerprint=other)), "utf-8")
    seen = scene.run("--rwkv-strict=no-baseline")
    assert seen.code == pytest.ExitCode.TESTS_FAILED
    assert seen.text.count("NO-BASELINE") >= 2
    assert f"differ from this one in cores ({other.cores} stored, {stored.fingerprint.cores} here)" in seen.sentence


def test_a_baseline_that_may_not_be_written_is_a_sentence_and_the_verdicts_are_shown(
    stage: Stage, tmp_path: Path
) -> None:
    scene = stage()
    with small_disk(tmp_path, "1m"):
        stored = tmp_path / scene.path.name
        stored.write_bytes(scene.path.read_bytes())
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        seen = scene.run("--rwkv-save-baseline", f"--rwkv-baseline-dir={tmp_path}")
    assert seen.code == pytest.ExitCode.TESTS_FAILED
    assert "Read-only file system" in seen.sentence
    assert "it was left as it is" in seen.sentence
    assert "PASS" in seen.text


@pytest.mark.parametrize(
    "variables", [{"XDG_CACHE_HOME": "/dev/null/cache"}, {"HOME": "/dev/null", "XDG_CACHE_HOME": ""}]
)
def test_a_cache_that_cannot_be_made_is_a_usage_error(stage: Stage, variables: dict[str, str]) -> None:
    scene = stage()
    scene.extra = variables
    seen = scene.run()
    assert seen.code == pytest.ExitCode.USAGE_ERROR, seen.text
    assert "point the cache elsewhere (XDG_CACHE_HOME on Linux)" in seen.sentence
    assert "INTERNALERROR" not in seen.text


def test_a_baseline_that_is_a_link_without_an_end_is_a_usage_error(stage: Stage) -> None:
    scene = stage()
    scene.path.unlink()
    scene.path.symlink_to("/dev/zero")
    seen = scene.run("--collect-only")
    assert seen.code == pytest.ExitCode.USAGE_ERROR, seen.text
    assert "more than the 268,435,456 bytes that any such file has" in seen.sentence


def test_under_python_s_development_mode_nothing_passes(stage: Stage) -> None:
    scene = stage()
    scene.extra = {"PYTHONDEVMODE": "1"}
    seen = scene.run()
    assert seen.code == 0
    assert "rwkvperf: under python -X dev, so no verdict will count" in seen.text
    assert "PASS" not in seen.text
    assert seen.text.count("INCONCLUSIVE") >= 2
