"""What each section of a record's page shows. A function gives None where its section would be empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.engine_settings import in_words
from pytest_rwkvperf.core.text import duration
from pytest_rwkvperf.oracle.bounds import bound_for
from pytest_rwkvperf.reports import batches, figures, headline, plots, wording
from pytest_rwkvperf.reports.wording import SPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.machine.roofline import Ceilings
    from pytest_rwkvperf.measure.record import CaseRecord, ModelFacts, ProcessRun
    from pytest_rwkvperf.reports.batches import Scaling
    from pytest_rwkvperf.reports.plots import Curve, Dots, Mark, Scale, Tick
    from pytest_rwkvperf.stats.estimates import Rate
    from pytest_rwkvperf.stats.verdicts import Comparison
    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedInvariant, RecordedItem

_MAX_SAMPLES = 200_000
"""Of all plots of samples together, about 3 MB. Of a longer record every n-th is drawn, and the page says so."""

_MOST_ROWS = 15
"""Rows of a list that are not folded; of a longer one `_FIRST_ROWS`, or as many as are slower, up to `_MOST_SLOWER`."""

_FIRST_ROWS = 10
_MOST_SLOWER = 40

_LONG_WORDS = ("machine", "model", "quant", "compares")
"""Columns of tables whose cells may be broken into lines."""

_MOST_BARS = 30
"""Bars that are not folded; of more, only those of the longest prefill and the longest generation are not."""

_RANKS = {"REGRESSION": 0, "INVALID": 1, "INCONCLUSIVE": 2, "PASS": 3, "IMPROVEMENT": 3, "NO-BASELINE": 4}
"""Verdicts in the order of interest to a reader; those of one rank are ordered by their ratios."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A record whose cases have distinct names, and those names without the parts that all cases share."""

    record: Record
    names: Mapping[Case, str]
    common: Mapping[str, str]

    @classmethod
    def of(cls, record: Record) -> Shown:
        """A record that is `disambiguated`."""
        parts = [figures.names(case) for case in record.cases]
        first = parts[0] if parts else {}
        kept = [name for name in first if len({row[name] for row in parts}) > 1] or ["backend"]
        named = {case.case: " ".join(row[name] for name in kept) for case, row in zip(record.cases, parts, strict=True)}
        # Engines are listed elsewhere, with their versions.
        common = {name: value for name, value in first.items() if name not in (*kept, "backend")}
        return cls(record, named, common)

    def measured(self) -> Iterator[tuple[RecordedCase, CaseRecord]]:
        """The cases that were measured."""
        return ((case, case.measured) for case in self.record.cases if case.measured)


def facts(shown: Shown) -> list[tuple[str, list[str]]]:
    """The facts at the top of the page: pairs of a name and its values."""
    record, machine = shown.record, shown.record.fingerprint
    models = {f"{each.model.name}, {_size(each.model.parameters)} parameters": None for _, each in shown.measured()}
    tolerance = headline.tolerances(record)
    found = [
        ("Model", [*models] or list(dict.fromkeys(case.case.model for case in record.cases))),
        ("Engines", _versions(shown)),
        ("Compared with", [*_reference(record), f"tolerance {tolerance}" if tolerance else ""]),
        (", ".join(shown.common).capitalize(), [", ".join(shown.common.values())]),
        ("Machine", [f"{machine.cpu}, {wording.count(machine.cores, 'core')}", *machine.gpus]),
        ("Measured", [_minute(record.started), f"in {duration(record.seconds)}"]),
    ]
    return [(name, kept) for name, values in found if (kept := [value for value in values if value])]


def _versions(shown: Shown) -> list[str]:
    """Each engine's packages with their versions, in A/B old → new."""
    found: dict[str, None] = {}
    for case, measured in shown.measured():
        old = case.old or (case.settled.old if case.settled else None)
        before = old.versions if old else measured.versions
        packages = [
            f"{name} {version}" if before.get(name) == version else f"{name} {before.get(name, 'none')} → {version}"
            for name, version in measured.versions.items()
        ]
        found[", ".join(packages)] = None
    return [*found]


def _reference(record: Record) -> list[str]:
    """What the figures were compared with."""
    if (other := record.against) is not None:
        commit = f"commit {other.commit[:10]}" if other.commit else ""
        machine = f"on {other.machine}" if other.machine != record.fingerprint.id else ""
        return [f"the run of {_minute(other.started)}", commit, machine]
    names = {
        "stored": "the stored baseline of this machine",
        "ab": "another build, in alternation (A/B)",
        "identity": "the same software, by its hashes",
    }
    steps = dict.fromkeys(names.get(item.step, "the baseline") for _, item in record.items() if item.comparison)
    return [*steps] or ["no baseline"]


def _minute(started: str) -> str:
    return f"{started[:16].replace('T', ' ')} UTC"


def _size(parameters: int) -> str:
    for power, unit in ((1e9, "B"), (1e6, "M")):
        if parameters >= power:
            return f"{parameters / power:.3g}{SPACE}{unit}"
    return f"{parameters:,}"


def troubles(shown: Shown) -> list[tuple[str, str]]:
    """What went wrong apart from verdicts: pairs of a case's or an engine's name, and a sentence."""
    record = shown.record
    failures = [(f"{figures.case_name(case)} was not measured", case.failure) for case in record.cases if case.failure]
    skipped = [(f"{engine.name} was skipped", engine.reason) for engine in record.skipped]
    observed = ((case, measured.gpu) for case, measured in shown.measured() if measured.gpu)
    return [*failures, *skipped, *((figures.case_name(case), note) for case, gpu in observed for note in gpu.notes())]


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
            _ratio_mark(scale, item.comparison),
            _band(scale, item.tolerance),
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


def _ratio_mark(scale: Scale, comparison: Comparison | None) -> Mark | None:
    if comparison is None:
        return None
    deciding = comparison.deciding
    high = float("inf") if deciding.high is None else deciding.high
    return plots.mark(scale, deciding.ratio, deciding.low, high)


def _band(scale: Scale, tolerance: float | None) -> tuple[float, float]:
    """Both ends of the tolerance."""
    return (scale.at(1 / (1 + (tolerance or 0.0))), scale.at(1 + (tolerance or 0.0)))


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


@dataclass(frozen=True, slots=True)
class InvariantRow:
    """An invariant of a case, what it compares, and its ratio's mark if it was compared."""

    name: str
    invariant: RecordedInvariant
    compares: str
    mark: Mark | None
    band: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Invariants:
    """Every invariant, the broken ones first."""

    rows: Sequence[InvariantRow]
    ticks: Sequence[Tick]
    same: float


def invariants(shown: Shown) -> Invariants | None:
    """The verdicts on invariants; None if the run judged none."""
    found = [(case, each) for case in shown.record.cases for each in case.invariants]
    if not found:
        return None
    found.sort(key=lambda row: (not row[1].fails, row[1].verdict == "HOLDS"))
    compared = [each.comparison.deciding for _, each in found if each.comparison]
    scale = plots.ratios([(one.ratio, one.low, one.high) for one in compared], max(each.tolerance for _, each in found))
    rows = [
        InvariantRow(
            shown.names[case.case],
            each,
            figures.invariant_cells(case, each)["compares"],
            _ratio_mark(scale, each.comparison),
            _band(scale, each.tolerance),
        )
        for case, each in found
    ]
    return Invariants(rows, plots.ratio_ticks(scale), scale.at(1.0))


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure that begins at zero."""

    name: str
    value: float
    mark: Mark
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """Figures on one scale."""

    title: str
    bars: Sequence[Bar]
    ticks: Sequence[Tick]


@dataclass(frozen=True, slots=True)
class Speeds:
    """Groups of bars in tokens per second, the fastest first; `folded` are those after the first few."""

    groups: Sequence[Bars]
    folded: Sequence[Bars]
    baseline: bool
    """Whether a bar has a tick for its baseline."""


def speeds(shown: Shown) -> Speeds | None:
    """The cases of each workload side by side; of a single case, its workloads of each kind."""
    several = len(shown.record.cases) > 1
    groups: dict[str, list[tuple[str, RecordedItem]]] = {}
    for case, item in shown.record.items():
        if item.typical_rate is None:
            continue
        kind = Workload.parse(item.workload).kind
        group, name = (item.workload, shown.names[case.case]) if several else (kind.capitalize(), item.workload)
        groups.setdefault(group, []).append((name, item))
    if not groups:
        return None
    bars = {title: _speed_bars(title, rows) for title, rows in groups.items()}
    baseline = any(item.baseline for rows in groups.values() for _, item in rows)
    first = _first_groups(groups)
    folded = [group for title, group in bars.items() if title not in first]
    return Speeds([bars[title] for title in first], folded, baseline)


def _first_groups(groups: Mapping[str, Sequence[object]]) -> list[str]:
    """The titles of the groups that are not folded."""
    if sum(map(len, groups.values())) <= _MOST_BARS or not all(map(Workload.is_name, groups)):
        return [*groups]
    longest = {workload.kind: str(workload) for workload in sorted(map(Workload.parse, groups))}
    return [title for title in groups if title in longest.values()]


def _speed_bars(title: str, rows: Iterable[tuple[str, RecordedItem]]) -> Bars:
    found = [(name, rate, _before(item, rate)) for name, item in rows if (rate := item.typical_rate)]
    found.sort(key=lambda row: -row[1].median)
    ends = [before for _, _, before in found if before is not None]
    scale = plots.amounts([*(rate.median for _, rate, _ in found), *ends], [rate.high for _, rate, _ in found])
    bars = [
        Bar(
            name,
            rate.median,
            plots.mark(
                scale,
                rate.median,
                rate.low if rate.high is not None else None,
                rate.high,
                before,
            ),
            wording.plus_minus(rate),
        )
        for name, rate, before in found
    ]
    return Bars(title, bars, plots.ticks(scale))


def _before(item: RecordedItem, rate: Rate) -> float | None:
    """The baseline beside a speed of the medians, which need not be the statistic that was compared."""
    if item.comparison:
        return rate.median / item.comparison.deciding.ratio
    return item.baseline.median if item.baseline else None


@dataclass(frozen=True, slots=True)
class Batches:
    """A plot of each workload that was measured with several numbers of sequences, and the table of all of them."""

    plots: Sequence[tuple[str, Curve]]
    table: Table
    gist: str


def scaling(shown: Shown) -> Batches | None:
    """Speed against the number of sequences; None where only one number was measured."""
    found = batches.scalings(shown.record)
    if not found:
        return None
    most = max(point.workload.batch for each in found for point in each.points)
    curves = [(f"{shown.names[each.case.case]} {each.workload}", _curve(each)) for each in found]
    return Batches(curves, _table("Speed by the number of sequences", batches.rows(found)), f"up to {most} at once")


def _curve(scaling: Scaling) -> Curve:
    """The measured speeds, and the limit by the roofline where it is known."""
    measured = [(float(point.workload.batch), point.speed) for point in scaling.points]
    first, last = measured[0][0], measured[-1][0]
    between = [round(first * (last / first) ** (index / 24)) for index in range(25)]
    sizes = list(dict.fromkeys(between))
    limits = [(float(size), limit) for size, limit in zip(sizes, scaling.limits(sizes) or [], strict=False)]
    rates = [(float(point.workload.batch), point.item.typical_rate) for point in scaling.points]
    intervals = [(size, rate.low, rate.high) for size, rate in rates if rate and rate.low and rate.high is not None]
    return plots.curve(measured, limits, intervals)


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


@dataclass(frozen=True, slots=True)
class Answers:
    """The largest relative L2 of each case's logits on a logarithmic scale, with a tick at the bound."""

    rows: Sequence[tuple[str, float, float, Mark]]
    """Name, distance, bound, mark."""
    within: int


def answers(shown: Shown) -> Answers | None:
    """How far each case's logits are from the reference's, and how far they may be."""
    found = [
        (shown.names[case.case], own.parity, _bound(case))
        for case in shown.record.cases
        if (own := case.figures) and own.parity is not None
    ]
    if not found:
        return None
    ends = [value for _, distance, bound in found for value in (distance, bound) if value > 0]
    scale = plots.Scale(min(ends) / 3, max(ends) * 3, logarithmic=True)
    rows = [(name, distance, bound, plots.mark(scale, distance, reference=bound)) for name, distance, bound in found]
    return Answers(rows, sum(distance <= bound for _, distance, bound in found))


def _bound(case: RecordedCase) -> float:
    """The largest relative L2 of correct logits."""
    device = case.measured.device if case.measured else None
    return bound_for(case.case.backend, case.case.quant, device).relative_l2


@dataclass(frozen=True, slots=True)
class Hardware:
    """Bars of what the hardware did, by kind, with the device's measured ceilings."""

    roofline: Bars | None
    energy: Bars | None
    busy: Bars | None
    ceilings: Sequence[tuple[str, Ceilings]]

    @property
    def gist(self) -> str:
        """Which of the kinds are known."""
        kinds = {"roofline": self.roofline, "energy": self.energy, "utilisation": self.busy}
        return ", ".join(name for name, bars in kinds.items() if bars)


def hardware(shown: Shown) -> Hardware | None:
    """Shares of the roofline, energy of a token and utilisation; None where none of them is known."""
    found = Hardware(
        _bars(shown, "Share of the roofline", lambda item: item.roofline_share, lambda _: 1.0),
        _bars(shown, "Energy of a token", lambda item: item.joules_per_token, lambda item: item.net_joules_per_token),
        _bars(shown, "Utilisation", lambda item: item.utilisation, lambda item: item.device_share, end=1.0),
        _ceilings(shown),
    )
    return found if found.roofline or found.energy or found.busy else None


def _bars(
    shown: Shown,
    title: str,
    value: Callable[[RecordedItem], float | None],
    reference: Callable[[RecordedItem], float | None],
    end: float | None = None,
) -> Bars | None:
    """Bars of a figure of each workload that has it, with another one as its tick."""
    found = [
        (f"{shown.names[case.case]} {item.workload}", own, reference(item))
        for case, item in shown.record.items()
        if (own := value(item)) is not None
    ]
    if not found:
        return None
    scale = plots.amounts([end, *(one for _, *pair in found for one in pair)])
    bars = [Bar(name, own, plots.mark(scale, own, reference=tick)) for name, own, tick in found]
    return Bars(title, bars, plots.ticks(scale))


def _ceilings(shown: Shown) -> list[tuple[str, Ceilings]]:
    """Each device's measured ceilings; every case measured them, and the highest ones count."""
    best: dict[str, Ceilings] = {}
    for _, measured in shown.measured():
        if ceilings := measured.ceilings:
            name = measured.device.name
            if name not in best or ceilings.copy_bytes_per_second > best[name].copy_bytes_per_second:
                best[name] = ceilings
    return list(best.items())


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; columns without any text are left out."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    @staticmethod
    def class_of(column: str, cell: str = "") -> str:
        """The CSS class of a cell, or without one of the column's heading: of figures, of a verdict, of long words."""
        if column not in figures.TEXT_COLUMNS:
            return "n"
        if cell and column == "verdict":
            return cell
        return "words" if cell and column in _LONG_WORDS else ""


def tables(shown: Shown) -> list[Table] | None:
    """The terminal's tables: every workload, every case, and every GPU."""
    record = shown.record
    if not any(item.rate for _, item in record.items()):
        return None
    gpus = [figures.gpu_cells(case) for case, measured in shown.measured() if measured.gpu]
    found = [
        _table("Every workload", [figures.item_cells(*each) for each in record.items()], figures.mixed_rates(record)),
        _table("Every case", [figures.case_cells(case) for case, _ in shown.measured()]),
        _table("GPU", gpus),
    ]
    return [table for table in found if table.rows]


def _table(caption: str, rows: Sequence[Mapping[str, str]], note: str = "") -> Table:
    columns = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
    return Table(caption, columns, [[row[name] for name in columns] for row in rows], note)


@dataclass(frozen=True, slots=True)
class Conditions:
    """The measured models, each once, and how each case was measured."""

    models: Sequence[ModelFacts]
    table: Table


def conditions(shown: Shown) -> Conditions:
    """What the section on machine and run says beside the record's own fields."""
    models = {measured.model.content_hash: measured.model for _, measured in shown.measured()}
    rows = [
        {
            **figures.names(case),
            "threads": str(case.case.threads),
            "chunk": str(case.case.chunk),
            "own settings": in_words(case.case.settings),
            "processes": str(len(measured.runs)),
            "ended by": measured.ended_by,
            "load before": f"{measured.conditions.load_before:.2f}",
            "steal": figures.percent(measured.conditions.steal),
            "other processes": figures.percent(measured.conditions.foreign),
        }
        for case, measured in shown.measured()
    ]
    return Conditions(list(models.values()), _table("How each case was measured", rows))
