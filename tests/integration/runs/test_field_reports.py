"""Situations of public trouble reports, in whole runs: what is refused is refused before anything is measured."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytest

from pytest_rwkvperf.cli import main
from pytest_rwkvperf.core import folders
from pytest_rwkvperf.models import gguf
from pytest_rwkvperf.models import st as st_format
from pytest_rwkvperf.models.shapes import Shape
from pytest_rwkvperf.models.synthetic import SyntheticModel

if TYPE_CHECKING:
    from tests.conftest import Runs


def shape(layers: int = 2) -> Shape:
    return Shape(layers=layers, width=64, rank_w=16, rank_a=24, rank_v=8, rank_g=40, vocabulary=128)


def silent(_sentence: str, _fraction: float) -> None:
    """Progress nobody needs."""


class Write(Protocol):
    def __call__(self, name: str, layers: int = 2) -> Path: ...


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a tiny model whose vocabulary is a few tokens."""
    monkeypatch.setattr(gguf, "world_tokens", lambda: (b"<s>", b"a", b"b"))

    def written(name: str, layers: int = 2) -> Path:
        path, model = tmp_path / name, SyntheticModel("tiny", shape(layers))
        if path.suffix == ".gguf":
            gguf.write(path, model, "tiny", silent, "")
        else:
            st_format.write(path, model, silent, "")
        return path

    return written


def refused(number: int) -> Any:  # noqa: ANN401 - takes the place of functions of several types
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_model_that_an_engine_cannot_load_is_refused_by_name_and_skipped_under_all(runs: Runs, write: Write) -> None:
    """Of one layer, for a format whose file has the value rank in the second; a small vocabulary goes the same way."""
    option = f"--rwkv-model={write('one.gguf', layers=1)}"
    reason = "*scripted cannot load one: *second layer*"
    named = runs.measuring(option)
    assert named.ret == pytest.ExitCode.USAGE_ERROR
    named.stderr.fnmatch_lines([reason])
    everyone = runs("--rwkv-backend=all", *runs.options, option)
    assert everyone.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    everyone.stdout.fnmatch_lines(["*none of the chosen engines can measure here", reason])


@pytest.mark.parametrize("name", ["m.gguf", "m.st"])
def test_a_file_system_that_maps_no_files_is_a_usage_error_with_the_models_name(
    runs: Runs, write: Write, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(name)
    runs.environment.setattr(np, "memmap", refused(errno.ENODEV))
    result = runs.measuring(f"--rwkv-model={path}", "--collect-only")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    message = f"{name}'*cannot map it (No such device); copy it to a local disk"
    result.stderr.fnmatch_lines([f"*{message}"])
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert main.main(["inspect", str(path)]) == 1
    assert "cannot map it (No such device); copy it to a local disk" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="flock is POSIX")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_cache_without_locks_is_a_usage_error_with_the_file_and_a_remedy(runs: Runs, number: int) -> None:
    import fcntl

    runs.environment.setattr(fcntl, "flock", refused(number))
    result = runs.measuring()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*pytest-rwkvperf/* cannot be locked: *XDG_CACHE_HOME*"])


def test_without_a_home_a_run_keeps_its_table_and_report_and_the_history_is_one_sentence(runs: Runs) -> None:
    """The cache is told by a variable, the place where runs wait for the history is not."""

    def no_home(*_: str, **__: object) -> Path:
        raise RuntimeError("could not determine the home directory")

    runs.environment.setattr(folders, "user_data_path", no_home)
    result = runs.measuring("--rwkv-history=h.db", "--rwkv-report=run.json")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["scripted *50.00*NO-BASELINE*", "this user has no home folder *set HOME, or XDG_*", "Wrote *run.json"]
    )
    assert (runs.pytester.path / "run.json").exists()
    assert "Traceback" not in result.stdout.str()


def test_paths_with_a_tilde_are_below_home_and_no_folder_is_called_so(runs: Runs) -> None:
    home = runs.pytester.path / "home"
    home.mkdir()
    runs.environment.setenv("HOME", str(home))
    given = ("--rwkv-baseline-dir=~/perf", "--rwkv-report=~/run.json", "--rwkv-history=~/h.db")
    assert runs.measuring("--rwkv-save-baseline", *given).ret == 0
    assert {path.name for path in home.iterdir()} >= {"perf", "run.json", "h.db"}
    assert not (runs.pytester.path / "~").exists()
    (home / "old").symlink_to(sys.prefix)
    python = Path(sys.executable).relative_to(sys.prefix)
    result = runs.measuring(f"--rwkv-ab=~/old/{python}", "--collect-only")
    assert result.ret == 0, result.stderr.str()
    result.stdout.fnmatch_lines([f"*in alternation with {home / 'old' / python}*"])
