"""Peak memory of each case, resident and on the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.reports import figures, plots, wording
from pytest_rwkvperf.reports.sections.bars import Bar, Bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.reports.sections.shown import Shown


@dataclass(frozen=True, slots=True)
class Memory:
    """Bars in bytes whose ticks are the size of the model's file."""

    groups: Sequence[Bars]
    gist: str


def memory(shown: Shown) -> Memory | None:
    """The largest memory of each case, resident and on the GPU."""
    found = [(shown.names[case.case], case.figures) for case in shown.record.cases if case.figures]
    resident = [(name, own.peak_rss_bytes, own.file_bytes) for name, own in found if own.peak_rss_bytes]
    device = [(name, own.peak_device_bytes, own.file_bytes) for name, own in found if own.peak_device_bytes]
    titled = (("Peak resident memory", resident), ("Peak GPU memory", device))
    groups = [_memory_bars(title, rows) for title, rows in titled if rows]
    if not groups:
        return None
    values = [bar.value for bar in groups[0].bars]
    return Memory(groups, wording.span(min(values), max(values), figures.mebibytes))


def _memory_bars(title: str, rows: Sequence[tuple[str, int, int]]) -> Bars:
    scale = plots.amounts([size for _, *sizes in rows for size in sizes])
    bars = [Bar(name, peak, plots.mark(scale, peak, reference=file)) for name, peak, file in rows]
    mebibytes = plots.Scale(0.0, scale.high / 2**20)
    return Bars(title, bars, plots.ticks(mebibytes))
