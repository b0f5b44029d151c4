from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_rwkvperf.core import subprocesses


def test_undecodable_output_is_replaced() -> None:
    line = r"import sys; sys.stdout.buffer.write(b'caf\xe9\n')"
    ended = subprocesses.run([sys.executable, "-c", line], capture=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, "caf\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize(
    ("before", "stored", "left"),
    [([], [], []), ([], ["0001_run.json"], [".benchmarks"]), ([".benchmarks"], [], [".benchmarks"])],
)
def test_pytest_benchmarks_folder_is_removed_if_it_is_new_and_empty(
    before: list[str], stored: list[str], left: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in before:
        Path(name).mkdir()
    with subprocesses.isolated_pytest(sys.executable, "ab"):
        Path(".benchmarks").mkdir(exist_ok=True)
        for name in stored:
            Path(".benchmarks", name).touch()
    assert [path.name for path in tmp_path.iterdir()] == left
