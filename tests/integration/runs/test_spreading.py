"""Two GPUs of a host under pytest-xdist, in a whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("xdist")

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Runs


def test_two_gpus_are_measured_at_once(runs: Runs, tmp_path: Path) -> None:
    """Each engine waits for the other's before it goes on; how long either takes by itself says nothing."""
    here = tmp_path / "here"
    here.mkdir()
    options = ("-n", "2", "--rwkv-device=cuda:0,cuda:1")
    result = runs.measuring(*options, fault="two-gpus@devices;meet@open", note=str(here), apart=True)
    assert result.ret == 0, result.stdout.str()
    result.assert_outcomes(passed=2)
    assert {path.name for path in here.iterdir()} == {"cuda-0", "cuda-1"}
