"""A run whose engine got slower says what differs from what it was compared with, and so does `rwkvperf explain`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pytest_rwkvperf.cli.main import main

if TYPE_CHECKING:
    import pytest

    from tests.conftest import Runs


def test_a_regression_names_the_variable_that_made_it(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.measuring("--rwkv-save-baseline", "--rwkv-report=old.json").ret == 0
    result = runs.measuring("--rwkv-compare=stored", "--rwkv-report=new.json", factor="2")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["  REGRESSION: *", "  why    environment variable SCRIPTED_FACTOR= → 2"])
    new = runs.pytester.path / "new.json"
    (item,) = json.loads(new.read_text(encoding="utf-8"))["cases"][0]["items"]
    assert [(cause["kind"], cause["what"]) for cause in item["causes"]] == [
        ("software", "environment variable SCRIPTED_FACTOR= → 2")
    ]
    capsys.readouterr()
    assert main(["explain", str(runs.pytester.path / "old.json"), str(new)]) == 0
    told = capsys.readouterr().out
    assert "scripted-fp16-cpu pp16: 100.0% slower (50.0 → 25.0 tokens/s)" in told
    assert "  software  environment variable SCRIPTED_FACTOR= → 2" in told
