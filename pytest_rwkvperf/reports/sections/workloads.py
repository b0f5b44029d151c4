"""Every workload with its verdict, figures and samples: against what it was compared with, or without a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.reports import figures, headline, plots
from pytest_rwkvperf.reports.sections.ratio_marks import band, ratio_mark

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_rwkvperf.measure.record import ProcessRun
    from pytest_rwkvperf.reports.plots import Dots, Mark, Tick
    from pytest_rwkvperf.reports.sections.shown import Shown
    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem

_MAX_SAMPLES = 200_000
"""Of all plots of samples together, about 3 MB. Of a longer record every n-th is drawn, and the page says so."""


_MOST_ROWS = 15
"""Rows of a list that are not folded; of a longer one `_FIRST_ROWS`, or as many as are slower, up to `_MOST_SLOWER`."""


_FIRST_ROWS = 10


_MOST_SLOWER = 40


_RANKS = {"REGRESSION": 0, "INVALID": 1, "INCONCLUSIVE": 2, "PASS": 3, "IMPROVEMENT": 3, "NO-BASELINE": 4}
"""Verdicts in the order of interest to a reader; those of one rank are ordered by their ratios."""


@dataclass(frozen=True, slots=True)
class Row:
    """A workload of a case: its verdict, its ratio's mark if it was compared, and its samples in order of time."""

    index: int
    name: str
    case: RecordedCase
    item: RecordedItem
    mark: Mark | None
    band: tuple[float, float]
    samples: Dots | None
    probes: Dots | None
    step: int
    """One sample in this many is drawn."""

    @property
    def detectable(self) -> float | None:
        """The smallest slowdown that is found 19 times in 20; None if there is no useful one."""
        slowdown = self.item.comparison.detectable if self.item.comparison else None
        return None if slowdown is None or slowdown >= figures.UNBOUNDED else slowdown

    @property
    def samples_note(self) -> str:
        """What the plot of samples shows, after its caption."""
        old = "; grey: the old side" if self.samples and "samples old" in self.samples.paths else ""
        left_out = f"; one in {self.step} is drawn" if self.step > 1 else ""
        return f"; lines separate processes{old}{left_out}"


@dataclass(frozen=True, slots=True)
class Rows:
    """Workloads, those of most interest first; `folded` are those after the first few."""

    rows: Sequence[Row]
    folded: Sequence[Row]
    folded_counts: str
    ticks: Sequence[Tick]
    same: float


def compared_rows(shown: Shown) -> Rows | None:
    """Every workload, the worst ratio first; None where nothing was compared."""
    return _rows(shown) if any(item.comparison for _, item in shown.record.items()) else None


def uncompared_rows(shown: Shown) -> Rows | None:
    """Every workload, of a record in which something was measured and nothing compared."""
    items = [item for _, item in shown.record.items()]
    return None if any(item.comparison for item in items) or not any(item.rate for item in items) else _rows(shown)


def _rows(shown: Shown) -> Rows:
    record = shown.record
    order = sorted(record.items(), key=lambda found: (_rank(found[1]), headline.ratio_of(found)))
    compared = [item.comparison.deciding for _, item in order if item.comparison]
    tolerance = max((item.tolerance or 0.0 for _, item in order), default=0.0) or 0.05
    scale = plots.ratios([(each.ratio, each.low, each.high) for each in compared], tolerance)
    step = max(1, -(-_samples_in(record) // _MAX_SAMPLES))
    rows = [
        Row(
            index,
            shown.names[case.case],
            case,
            item,
            ratio_mark(scale, item.comparison),
            band(scale, item.tolerance),
            *_sample_plots(case, item, step),
            step,
        )
        for index, (case, item) in enumerate(order)
    ]
    first = _first(rows, sum(row.mark is not None or row.item.fails for row in rows))
    counts = ", ".join(words for _, words in headline.counts(row.item for row in rows[first:]))
    return Rows(rows[:first], rows[first:], counts, plots.ratio_ticks(scale), scale.at(1.0))


def _rank(item: RecordedItem) -> int:
    return _RANKS[item.verdict] if item.verdict else 1 if item.fails else len(_RANKS)


def _first(rows: Sequence[Row], of_interest: int) -> int:
    """How many rows are shown unfolded: those of interest, or all if there are none; of many only the first."""
    wanted = of_interest or len(rows)
    if wanted <= _MOST_ROWS:
        return wanted
    slower = sum(row.item.fails or row.item.verdict == "REGRESSION" for row in rows)
    return max(_FIRST_ROWS, min(slower, _MOST_SLOWER))


def _samples_in(record: Record) -> int:
    return sum(
        len(run.samples.get(item.workload, ()))
        for case, item in record.items()
        for side in case.sides(item)
        if side
        for run in side.runs
    )


def _sample_plots(case: RecordedCase, item: RecordedItem, step: int) -> tuple[Dots | None, Dots | None]:
    """Speed of each repetition in order of time, and the milliseconds of the probes beside them."""
    tokens = Workload.parse(item.workload).total_tokens
    taken = sorted(
        row
        for side, record in zip(("samples new", "samples old"), case.sides(item), strict=True)
        if record
        for process, run in enumerate(record.runs, 1)
        for row in _repetitions(run, item.workload, process, side)
    )[::step]
    if not taken:
        return None, None
    processes = [process for _, process, _, _, _ in taken]
    starts = [index for index, now in enumerate(processes) if index and now != processes[index - 1]]
    speeds = plots.dots([tokens / time * 1e9 for *_, time, _ in taken], [side for _, _, side, _, _ in taken], starts)
    probes = [probe / 1e6 if probe else None for *_, probe in taken]
    beside = plots.dots(probes, ["samples probe"] * len(probes), starts) if any(probes) else None
    return speeds, beside


def _repetitions(run: ProcessRun, workload: str, process: int, side: str) -> Iterator[tuple[float, int, str, int, int]]:
    """Start, process, side, and nanoseconds of each repetition and of the probe before it; 0 without one."""
    probes = run.probes.get(workload, ())
    for index, sample in enumerate(run.samples.get(workload, ())):
        yield sample.started, process, side, sample.nanoseconds, probes[index] if index < len(probes) else 0
