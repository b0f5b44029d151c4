"""How far an engine's own tool's figure lies from this project's protocol's, where a run has both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.store.record import Record

_ENGINES = {"llama-bench": "llama-cpp", "web-rwkv-bench": "web-rwkv"}
"""The engine inside a program."""


@dataclass(frozen=True, slots=True)
class Apart:
    """One workload timed both ways: native over uniform tokens per second."""

    case: Case
    workload: str
    ratio: float

    def __str__(self) -> str:
        return f"{self.case.label} {self.workload} x{self.ratio:.2f}"


def apart(rates: Mapping[tuple[Case, str], float]) -> list[Apart]:
    """Every native figure with the uniform one of the same engine, quant, device and threads; chunks may differ."""
    uniform = {
        (_setting(case), workload): rate for (case, workload), rate in rates.items() if case.protocol == "uniform"
    }
    return [
        Apart(case, workload, rate / beside)
        for (case, workload), rate in rates.items()
        if case.protocol == "native" and (beside := uniform.get((_setting(case), workload)))
    ]


def _setting(case: Case) -> Case:
    return replace(case, backend=_ENGINES.get(case.backend, case.backend), protocol="uniform", chunk=0)


def of_record(record: Record) -> list[Apart]:
    """The same of a record."""
    return apart({(case.case, item.workload): item.rate.median for case, item in record.items() if item.rate})


def sentence(found: list[Apart]) -> str:
    """For a person; empty where nothing was timed both ways."""
    return f"Native over uniform tokens/s: {', '.join(map(str, found))}." if found else ""
