"""Unusable inputs of a run: malformed model files, missing engines, baselines that cannot be written."""

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

    from tests.faults.sandbox import SandboxFactory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes are Linux's")


class Touches:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.system, (f"touch {self.marker}",)


def hostile(path: Path, marker: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Touches(marker), 2))
        archive.writestr("model/version", "3\n")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("hostile.pth", b"", "posix.system"),
        ("pointer.gguf", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
        ("mislabelled.st", b"GGUF\x03\0\0\0", "its content is .gguf"),
        ("lying.st", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "lying.st"),
    ],
    ids=["hostile", "pointer", "mislabelled", "endless"],
)
def test_a_malformed_model_file_is_a_usage_error(
    new_sandbox: SandboxFactory, name: str, content: bytes, reason: str
) -> None:
    sandbox = new_sandbox()
    model, marker = sandbox.folder / name, sandbox.root / "ran"
    if content:
        model.write_bytes(content)
    else:
        hostile(model, marker)
    result = sandbox.run(f"--rwkv-model={model}")
    assert result.code == pytest.ExitCode.USAGE_ERROR, result.text
    assert name in result.text
    assert reason in result.sentence
    assert "Traceback" not in result.text
    assert not marker.exists()


def test_a_missing_engine_is_a_usage_error(new_sandbox: SandboxFactory) -> None:
    result = new_sandbox().run(fault="missing@versions")
    assert result.code == pytest.ExitCode.USAGE_ERROR, result.text
    assert "pip install scripted-native" in result.sentence


def test_another_machines_baseline_is_not_used(new_sandbox: SandboxFactory) -> None:
    sandbox = new_sandbox()
    stored = baselines.loads(sandbox.path.read_text("utf-8"), sandbox.path)
    other = replace(stored.fingerprint, cores=stored.fingerprint.cores + 62)
    sandbox.path.unlink()
    path = files.path_for(sandbox.path.parent, other)
    path.write_text(baselines.dumps(replace(stored, fingerprint=other)), "utf-8")
    result = sandbox.run("--rwkv-strict=no-baseline")
    assert result.code == pytest.ExitCode.TESTS_FAILED
    assert result.text.count("NO-BASELINE") >= 2
    assert f"differ from this one in cores ({other.cores} stored, {stored.fingerprint.cores} here)" in result.sentence


def test_a_read_only_baseline_is_an_error_before_anything_is_measured(
    new_sandbox: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = new_sandbox()
    with small_disk(tmp_path, "1m"):
        stored = tmp_path / sandbox.path.name
        stored.write_bytes(sandbox.path.read_bytes())
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        result = sandbox.run("--rwkv-save-baseline", f"--rwkv-baseline-dir={tmp_path}")
        assert stored.read_bytes() == sandbox.path.read_bytes()
    assert result.code == pytest.ExitCode.USAGE_ERROR
    assert "Read-only file system" in result.text
    assert "--rwkv-baseline-dir" in result.text


@pytest.mark.parametrize(
    "variables", [{"XDG_CACHE_HOME": "/dev/null/cache"}, {"HOME": "/dev/null", "XDG_CACHE_HOME": ""}]
)
def test_an_unusable_cache_is_a_usage_error(new_sandbox: SandboxFactory, variables: dict[str, str]) -> None:
    sandbox = new_sandbox()
    sandbox.extra = variables
    result = sandbox.run()
    assert result.code == pytest.ExitCode.USAGE_ERROR, result.text
    assert "point the cache elsewhere (XDG_CACHE_HOME on Linux" in result.sentence
    assert "INTERNALERROR" not in result.text


def test_an_endless_baseline_is_a_usage_error(new_sandbox: SandboxFactory) -> None:
    sandbox = new_sandbox()
    sandbox.path.unlink()
    sandbox.path.symlink_to("/dev/zero")
    result = sandbox.run("--collect-only")
    assert result.code == pytest.ExitCode.USAGE_ERROR, result.text
    assert "more than the 268,435,456 bytes that any such file has" in result.sentence


def test_no_verdict_passes_in_python_s_development_mode(new_sandbox: SandboxFactory) -> None:
    sandbox = new_sandbox()
    sandbox.extra = {"PYTHONDEVMODE": "1"}
    result = sandbox.run()
    assert result.code == 0
    assert "rwkvperf: under python -X dev, so no verdict will count" in result.text
    assert "PASS" not in result.text
    assert result.text.count("INCONCLUSIVE") >= 2
