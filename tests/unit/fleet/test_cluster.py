"""What runs on a node of a cluster, without a cluster."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from pytest_rwkvperf.fleet import cluster

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(sys.platform == "win32", reason="the interpreter is a shell script")
def test_run_that_ignores_ctrl_c_is_killed_and_its_record_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    # The last argument is --rwkv-report=json:FILE.
    lines = ["trap '' INT", 'for last; do :; done; printf whole > "${last#*:}"', "echo $$", "exec sleep 60"]
    script.write_text("\n".join(["#!/bin/sh", *lines]), encoding="ascii")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(cluster, "_GRACE_SECONDS", 0.2)
    answer = cluster.measure(["--rwkv-backend=all"], "", 1.0)
    assert (answer.code, answer.record) == (-9, "whole")
    assert not psutil.pid_exists(int(answer.tail))
