"""The ratio of native to uniform figures of one engine (`--rwkv-protocol=uniform,native`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.store.record import Record

_ENGINES = {"llama-bench": "llama-cpp", "llama-batched-bench": "llama-cpp", "web-rwkv-bench": "web-rwkv"}
"""The engine inside a program."""


def sentence(record: Record) -> str:
    """Each native figure over the uniform one of the same engine, quant, device and threads; empty if there is none.

    Chunks may differ.
    """
    speeds = {(case.case, item.workload): item.typical_rate for case, item in record.items()}
    rates = {key: rate.median for key, rate in speeds.items() if rate}
    uniform = {(_setting(case), name): rate for (case, name), rate in rates.items() if case.protocol == "uniform"}
    ratios = [
        f"{case.label} {name} x{rate / uniform[key]:.2f}"
        for (case, name), rate in rates.items()
        if case.protocol == "native" and (key := (_setting(case), name)) in uniform
    ]
    return f"Native over uniform tokens/s: {', '.join(ratios)}." if ratios else ""


def _setting(case: Case) -> Case:
    return replace(case, backend=_ENGINES.get(case.backend, case.backend), protocol="uniform", chunk=0)
