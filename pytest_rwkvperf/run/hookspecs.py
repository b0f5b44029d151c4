"""The hooks of this plugin, for other plugins and conftest files. Every pytest run imports this module.

They are called in the process that prints the summary: under pytest-xdist the controller. What an implementation
returns is ignored. What it raises is told in the summary and makes the run fail; figures and reports are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.store.record import Record, RecordedItem


@pytest.hookspec
def pytest_rwkvperf_verdict(config: pytest.Config, nodeid: str, case: Case, item: RecordedItem) -> None:
    """A test has its verdict: called when the test's report arrives, again where a test is run again.

    Args:
        config: pytest's.
        nodeid: the test's id.
        case: what was measured: engine, model, quant, device, threads, chunk and protocol.
        item: the workload with its verdict, reason, speed and comparison. What needs all samples, such as latencies, is
            null here and stands in the record.
    """


@pytest.hookspec
def pytest_rwkvperf_record(config: pytest.Config, record: Record) -> None:
    """The run's measurement record is complete: called once, after baseline and reports were written.

    Args:
        config: pytest's.
        record: what `--rwkv-report=FILE.json` writes, also of a run that was interrupted.
    """
