"""Prefill and generation throughput of every engine and quant, judged against this machine's baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_rwkvperf.run.handles import Perf


def test_throughput(rwkv_perf: Perf) -> None:
    """Fails on a regression and on an invalid figure."""
    rwkv_perf.check()
