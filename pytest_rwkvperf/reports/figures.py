"""Figures as text, the same in every report for people. What is None becomes an empty text."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cases import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_rwkvperf.core.cases import Case, WorkloadKind
    from pytest_rwkvperf.stats.estimates import Rate
    from pytest_rwkvperf.stats.verdicts import Comparison, Step
    from pytest_rwkvperf.store.record import CaseItem, Record, RecordedCase, RecordedInvariant, RecordedItem

UNUSABLE = "unusable"
"""Instead of an interval so wide that its rate is no measurement."""

UNBOUNDED = 10.0
"""A comparison that detects only slowdowns beyond tenfold detects nothing."""

STEPS: dict[Step, str] = {"": "", "identity": "software", "stored": "stored", "ab": "A/B"}
"""What decided, as a table says it."""

TEXT_COLUMNS = frozenset(
    {"machine", "model", "backend", "quant", "device", "workload", "invariant", "compares", "by", "verdict", "ended by"}
)
"""Columns of tables that hold words; the others hold figures."""

_WIDE = 100.0
"""A ratio beyond it is a bound that says nothing."""

TIMES = "×"  # noqa: RUF001 - the sign of multiplication
"""The beginning of a column's title, before the name of the quant that speeds are divided by."""

_HALF_PRECISION = ("f16", "fp16")
"""The engines' names of the quant that the others are compared with."""


def number(value: float | None, form: str, unit: str = "", scale: float = 1.0) -> str:
    """A scaled number in a format of `format`, with its unit."""
    return "" if value is None else format(value * scale, form) + unit


def speed(value: float | None) -> str:
    """Tokens per second with about four digits."""
    return number(value, f".{_decimals(value)}f")


def _decimals(value: float | None) -> int:
    """The decimals that make about four digits."""
    return 2 if value is None or value < 100 else 1 if value < 1000 else 0  # noqa: PLR2004 - powers of ten


def ratio(value: float | None) -> str:
    """New over old tokens per second."""
    return number(value, ".3f" if value is None or value < _WIDE else ".1e")


def percent(share: float | None) -> str:
    """A share with one decimal."""
    return "> 100 times" if share is not None and share >= _WIDE else number(share, ".1%")


def precision(rate: Rate | None) -> str:
    """Half a rate's interval, as a share of it."""
    return "" if rate is None else UNUSABLE if rate.unusable else percent(rate.half_width)


def two_digits(share: float | None) -> str:
    """A share with about two digits."""
    return number(share, ".0%" if share is None or share >= 0.1 else ".1%")  # noqa: PLR2004 - a power of ten


def milliseconds(seconds: float | None) -> str:
    """A time with its unit and about four digits."""
    return number(seconds, f".{_decimals(seconds and seconds * 1e3)}f", " ms", 1e3)


def mebibytes(count: float | None) -> str:
    """A size with its unit."""
    return number(count, ".0f", " MiB", 1 / 2**20)


def parity(value: float | None) -> str:
    """Relative L2 of the logits from the oracle's."""
    return number(value, ".1e")


def bounds(comparison: Comparison | None) -> str:
    """The bounds of a ratio; empty if it has no upper one."""
    if comparison is None or comparison.deciding.high is None:
        return ""
    return f"{comparison.deciding.low:.2f}-{comparison.deciding.high:.2f}"


def mixed_rates(record: Record) -> str:
    """A sentence for a table in which some speeds were compared, and are therefore of another statistic than the rest.

    Empty where all are of the same.
    """
    if len({item.rate.statistic for _, item in record.items() if item.rate}) < 2:  # noqa: PLR2004 - to differ
        return ""
    return "In a row with a ratio, t/s and baseline are of the fast repetitions; other rows show the median."


def case_name(case: RecordedCase) -> str:
    """How a sentence of the HTML page names a case: engine, quant and device."""
    return " ".join(names(case).values())


def item_name(case: RecordedCase, item: RecordedItem) -> str:
    """How a sentence names a workload of a case."""
    return f"{case.case.label} {item.workload}"


def work_notes(record: Record) -> list[str]:
    """Sentences on what the witnesses counted: other work than before, or the same work where times do not decide.

    A slowdown with the same work is included: its cause is then memory, the clock, caches, or other machine code.
    """
    explained = ("INCONCLUSIVE", "REGRESSION", "NO-BASELINE")
    return [
        f"{item_name(case, item)}: {item.work.verdict} ({'; '.join(item.work.sentences)})."
        for case, item in record.items()
        if item.work is not None and (item.work.verdict != "SAME WORK" or item.verdict in explained)
    ]


def verdict_of(item: RecordedItem) -> str:
    """The verdict; where there is none, whether the workload was at least measured."""
    return item.verdict or ("not judged" if item.rate else "not measured")


def names(case: RecordedCase) -> dict[str, str]:
    """What identifies a case in a table, by column."""
    return {"backend": case.case.backend, "quant": case.case.variant, "device": case.case.device}


def item_cells(case: RecordedCase, item: RecordedItem) -> dict[str, str]:
    """The figures of a workload, by column.

    `detects ≥` is the smallest slowdown that is detected 19 times in 20, `by` what decided.
    """
    comparison = item.comparison
    detectable = comparison.detectable if comparison else None
    return {
        **names(case),
        "workload": item.workload,
        "t/s": speed(item.rate.median if item.rate else None),
        "± 95 %": precision(item.rate),
        "baseline": speed(item.baseline.median if item.baseline else None),
        "ratio": ratio(comparison.deciding.ratio if comparison else None),
        "bounds": bounds(comparison),
        "detects ≥": number(detectable, ".0%") if detectable is None or detectable < UNBOUNDED else "",
        "parity": parity(case.figures.parity if case.figures else None),
        "by": STEPS[item.step],
        "verdict": verdict_of(item),
    }


def invariant_cells(case: RecordedCase, invariant: RecordedInvariant) -> dict[str, str]:
    """The figures of an invariant, by column; with a ratio below 1 the tested workload needs more."""
    comparison = invariant.comparison
    tested, depth = f"{invariant.tested} / {invariant.reference}", Workload.parse(invariant.tested).depth
    return {
        **names(case),
        "invariant": invariant.name,
        "compares": f"memory @d{depth} / @d0" if invariant.quantity == "memory" else tested,
        "ratio": ratio(comparison.deciding.ratio if comparison else None),
        "bounds": bounds(comparison),
        "verdict": invariant.verdict,
    }


def item_rows(items: Sequence[CaseItem]) -> list[dict[str, str]]:
    """The figures of every workload, by column; in a sweep of quants with their speeds relative to f16.

    In a sweep of settings alone they are relative to the first. The cases are as `Record.disambiguated` gives
    them, so that their names identify them.
    """
    title, factors = _quant_factors(items)
    if not title:
        title, factors = _setting_factors(items)
    rows = []
    for case, item in items:
        row = {}
        for name, cell in item_cells(case, item).items():
            row[name] = cell
            if title and name == "± 95 %":
                row[title] = number(factors.get((case.case, item.workload)), ".2f")
        rows.append(row)
    return rows


Factors = dict[tuple["Case", str], float]
"""Of a case and a workload: its speed over that of the case that it is compared with."""


def _quant_factors(items: Sequence[CaseItem]) -> tuple[str, Factors]:
    """A column's title, and the speed of each quant over that of f16; where that was not measured, of the first one.

    No title where one quant is measured.
    """
    factors: Factors = {}
    references = set()
    for workload, speeds in _sweeps(items, lambda case: replace(case, quant="")):
        reference = next((case for case in speeds if case.quant in _HALF_PRECISION), next(iter(speeds)))
        references.add("f16" if reference.quant in _HALF_PRECISION else reference.quant)
        factors.update({(case, workload): speed / speeds[reference] for case, speed in speeds.items()})
    named = references.pop() if len(references) == 1 else "first" if references else ""
    return f"{TIMES} {named}" if named else "", factors


def _setting_factors(items: Sequence[CaseItem]) -> tuple[str, Factors]:
    """As `_quant_factors`, of cases that differ in the engine's own settings or the chunk, over the first of them."""
    factors = {
        (case, workload): speed / next(iter(speeds.values()))
        for workload, speeds in _sweeps(items, lambda case: replace(case, settings=(), chunk=0))
        for case, speed in speeds.items()
    }
    return f"{TIMES} first" if factors else "", factors


def _sweeps(items: Sequence[CaseItem], common: Callable[[Case], Case]) -> list[tuple[str, dict[Case, float]]]:
    """Each workload with the speeds of cases of which `common` gives the same; only of several cases.

    Medians are compared, as everywhere between cases; an INVALID speed with none.
    """
    sweeps: dict[tuple[Case, str], dict[Case, float]] = {}
    for case, item in items:
        if item.typical_rate and item.verdict != "INVALID":
            speeds = sweeps.setdefault((common(case.case), item.workload), {})
            speeds[case.case] = item.typical_rate.median
    return [(workload, speeds) for (_, workload), speeds in sweeps.items() if len(speeds) > 1]


def without_empty_columns(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The rows without the columns that are empty in all of them."""
    used = {name for row in rows for name, cell in row.items() if cell}
    return [{name: cell for name, cell in row.items() if name in used} for row in rows]


def case_cells(case: RecordedCase) -> dict[str, str]:
    """The figures of a case, by column. Latencies and MFU or MBU are those of the longest prefill and generation.

    TTFT is the time to the first token, ITL the time between two tokens.
    """
    prefill, generation = longest(case, "prefill"), longest(case, "generation")
    between = generation.inter_token_seconds if generation else None
    figures = case.figures
    return {
        **names(case),
        "load": number(figures.load_seconds if figures else None, ".2f", " s"),
        "TTFT": milliseconds(prefill.first_token_seconds if prefill else None),
        "ITL p50": milliseconds(between.p50 if between else None),
        "ITL p99": milliseconds(between.p99 if between else None),
        "MFU": two_digits(prefill.roofline_share if prefill else None),
        "MBU": two_digits(generation.roofline_share if generation else None),
        "peak RSS": mebibytes(figures.peak_rss_bytes if figures else None),
        "file": mebibytes(figures.file_bytes if figures else None),
    }


def gpu_cells(case: RecordedCase) -> dict[str, str]:
    """What only a GPU has, by column: memory, energy (net of the idle part in brackets), utilisation, its state.

    `busy` is the driver's utilisation; `device` the share of a repetition in which CUPTI saw the device work.
    """
    pair = {"pp": longest(case, "prefill"), "tg": longest(case, "generation")}
    readings = case.measured.gpu.readings if case.measured and case.measured.gpu else ()
    clocks = sorted(reading.sm_mhz for reading in readings if reading.sm_mhz is not None and reading.utilisation)
    celsius = [reading.celsius for reading in readings if reading.celsius is not None]
    return {
        **names(case),
        "GPU memory": mebibytes(case.figures.peak_device_bytes if case.figures else None),
        **{f"{kind} J/token": joules(item) for kind, item in pair.items()},
        **{f"{kind} busy": two_digits(item.utilisation if item else None) for kind, item in pair.items()},
        **{f"{kind} device": two_digits(item.device_share if item else None) for kind, item in pair.items()},
        "SM clock": f"{'-'.join(map(str, dict.fromkeys((clocks[0], clocks[-1]))))} MHz" if clocks else "",
        "hottest": f"{max(celsius)} °C" if celsius else "",
    }


def joules(item: RecordedItem | None) -> str:
    """Energy of a token, net of the idle part in brackets."""
    if item is None or item.joules_per_token is None:
        return ""
    net = item.net_joules_per_token
    return number(item.joules_per_token, ".3g") + ("" if net is None else f" ({net:.3g})")


def longest(case: RecordedCase, kind: WorkloadKind) -> RecordedItem | None:
    """The workload of a kind with most tokens; of several, the one with least context and fewest sequences.

    Energy and device time are measured only without context.
    """
    workloads = [(Workload.parse(item.workload), item) for item in case.items]
    sizes = [
        (workload.tokens, -workload.depth, -workload.batch, item)
        for workload, item in workloads
        if workload.kind == kind
    ]
    return max(sizes, key=lambda size: size[:3])[-1] if sizes else None
