"""A real Ray cluster of node processes: nodes that die, hang or are too small are named, and no other is lost."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.fleet import nodes

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install ray"),
    pytest.mark.skipif(sys.platform != "linux", reason="nodes are stopped and killed as Linux does it"),
    # Ray leaves sockets and files to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_lost_nodes_are_named_and_the_other_records_complete(tmp_path: Path) -> None:
    merged, seconds = nodes.measure_with_failures(tmp_path)
    assert seconds < 75
    assert len(merged.runs) == 2
    assert all(run.exit_status == 0 and len(run.cases) == 1 for run in merged.runs)
    reasons = " | ".join(lost.reason for lost in merged.missing)
    assert len(merged.missing) == 3, reasons
    assert "0.1 GiB of memory for tasks, 0.2 GiB are asked for" in reasons
    assert "NodeDiedError" in reasons or "WorkerCrashedError" in reasons
    assert merged.fails
    environments = [process.info["environ"] or {} for process in psutil.process_iter(["environ"])]
    assert not [values for values in environments if values.get("SCRIPTED_SANDBOX") == tmp_path.name]
