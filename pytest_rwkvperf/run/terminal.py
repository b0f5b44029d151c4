"""The summary table at the end of a run, and one sentence for what to do next."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pytest_rwkvperf.core.cases import Workload, told_apart
from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.measure.measurement import Measurement
from pytest_rwkvperf.reports import native_ratio
from pytest_rwkvperf.stats.verdicts import MAX_CONTENTION
from pytest_rwkvperf.verdict.judged import with_distinct_cases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytest

    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.run.result import RunResult, Saved
    from pytest_rwkvperf.run.session import Session
    from pytest_rwkvperf.stats.estimates import Rate
    from pytest_rwkvperf.stats.verdicts import Comparison, Verdict
    from pytest_rwkvperf.verdict.judged import Judgement

_NOISY = 0.10
"""Half-width beyond which a saved figure deserves a warning: it makes every later verdict inconclusive."""

_BLUNT = 2
"""A comparison that finds nothing under so many tolerances is too blunt for that tolerance."""

_NOTHING = 10.0
"""A comparison that finds only slowdowns beyond tenfold finds nothing."""

_COLOURS = {
    "PASS": "green",
    "IMPROVEMENT": "bold green",
    "REGRESSION": "bold red",
    "INVALID": "bold red",
    "INCONCLUSIVE": "yellow",
    "NO-BASELINE": "cyan",
}

_GPU_COLUMNS = (
    "GPU memory",
    "pp J/token (net)",
    "tg J/token (net)",
    "pp busy",
    "tg busy",
    "pp device",
    "tg device",
    "SM clock",
    "hottest",
)

_WIDEST = 1000
"""Columns: more than any table has."""


def write(reporter: pytest.TerminalReporter, session: Session, result: RunResult) -> None:
    """Print the section. Rich renders to text; pytest's reporter writes it, so capturing and xdist behave."""
    judgements = list(result.judgements.values())
    if not (judgements or result.troubles or result.reports or result.history):
        return
    reporter.write_sep("=", "RWKV-7 throughput")
    if judgements:
        writer = reporter.config.get_terminal_writer()
        reporter.write(render(judgements, writer.fullwidth, colour=writer.hasmarkup))
    if records := session.folder.new_records():
        shown = told_apart(one.case for one in records)
        records = [replace(one, case=shown[one.case]) for one in records]
        reporter.write("\n" + _text(_case_table(records), colour=False))
        if any(record.gpu for record in records):
            reporter.write("\n" + _text(_gpu_table([record for record in records if record.gpu]), colour=False))
    for sentence in gpu_notes(records):
        reporter.write_line(printable(sentence, keep="\n"))
    steps = next_steps(session, result) if judgements or result.troubles else []
    for sentence in [*steps, *(f"Wrote {path}" for path in result.reports), *result.history]:
        reporter.write_line(printable(sentence, keep="\n"))


def render(judgements: list[Judgement], width: int, *, colour: bool) -> str:
    """The table as text for a terminal of `width` columns.

    A narrow one gets no bounds, no smallest slowdown that such a run finds 19 times in 20, no parity (relative L2 from
    the oracle) and single spaces. What is still wider is left
    to the terminal to wrap: rich would cut columns down to "REGRESS…" and "12…".
    """
    console = Console(file=io.StringIO(), width=_WIDEST, force_terminal=colour, no_color=not colour, highlight=False)
    judgements = with_distinct_cases(judgements)
    table = _table(judgements, narrow=False)
    if console.measure(table).maximum > width:
        table = _table(judgements, narrow=True)
    return _text(table, colour=colour)


def _text(table: Table, *, colour: bool) -> str:
    console = Console(file=io.StringIO(), width=_WIDEST, force_terminal=colour, no_color=not colour, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def _case_table(records: Sequence[CaseRecord]) -> Table:
    """What belongs to a case rather than to a workload: load time, latencies, memory and the file's size."""
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for name in ("backend", "quant", "device"):
        table.add_column(name)
    for name in ("load", "first token", "inter-token p50", "p99", "MFU", "MBU", "peak RSS", "file"):
        table.add_column(name, justify="right")
    for record in records:
        table.add_row(
            *map(Text, (record.case.backend, record.case.variant, record.case.device)), *_case_figures(record)
        )
    return table


def _case_figures(record: CaseRecord) -> list[str]:
    """First token: of the longest prompt timed. Inter-token: of the longest generation timed."""
    prefill, generation = pair = _longest(record)
    first = prefill.time_to_first_token_seconds if prefill else None
    between = generation.inter_token_latency_seconds() if generation else None
    either = prefill or generation
    assert either is not None  # noqa: S101 - a workload is the one or the other
    memory = either.memory
    return [
        f"{either.load_seconds:.2f} s",
        f"{first * 1e3:.1f} ms" if first is not None else "",
        *((f"{share * 1e3:.2f} ms" for share in between) if between else ("", "")),
        *(_percent(one.roofline_share if one else None) for one in pair),
        f"{memory.peak_rss_bytes / 2**20:.0f} MiB",
        f"{memory.file_bytes / 2**20:.0f} MiB",
    ]


def _longest(record: CaseRecord) -> tuple[Measurement | None, Measurement | None]:
    """The longest prefill and generation; of several depths the least, which alone has energy and device time."""
    taken = [Measurement(record, Workload.parse(name)) for name in record.runs[0].samples]
    taken.sort(key=lambda one: (one.workload.tokens, -one.workload.depth))
    longest = {one.workload.kind: one for one in taken}
    return longest.get("prefill"), longest.get("generation")


def _gpu_table(records: Sequence[CaseRecord]) -> Table:
    """What only a GPU tells: memory, energy (in brackets without the idle part), how busy it was, its state.

    Busy is the driver's account, device the share of a repetition's time in which CUPTI saw the device work.
    """
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for name in ("backend", "quant", "device"):
        table.add_column(name)
    for name in _GPU_COLUMNS:
        table.add_column(name, justify="right")
    for record in records:
        table.add_row(*map(Text, (record.case.backend, record.case.variant, record.case.device)), *_gpu_figures(record))
    return table


def _gpu_figures(record: CaseRecord) -> list[str]:
    pair = _longest(record)
    readings = record.gpu.readings if record.gpu else ()
    clocks = sorted(one.sm_mhz for one in readings if one.sm_mhz is not None and one.utilisation)
    heat = [one.celsius for one in readings if one.celsius is not None]
    peak = next(one.memory.peak_device_bytes for one in pair if one is not None)
    return [
        f"{peak / 2**20:.0f} MiB" if peak is not None else "",
        *(_joules(one) for one in pair),
        *(_percent(one.utilisation if one else None) for one in pair),
        *(_percent(one.device_share if one else None) for one in pair),
        f"{clocks[0]}-{clocks[-1]} MHz" if clocks else "",
        f"{max(heat)} °C" if heat else "",
    ]


def _joules(one: Measurement | None) -> str:
    if one is None or one.joules_per_token is None:
        return ""
    net = one.net_joules_per_token
    return f"{one.joules_per_token:.3g}" + (f" ({net:.3g})" if net is not None else "")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}" if share < 0.1 else f"{share:.0%}"  # noqa: PLR2004 - two digits shown


def gpu_notes(records: Sequence[CaseRecord]) -> list[str]:
    """What was the matter with the GPUs while the cases were measured."""
    return [f"{record.case.label}: {note}." for record in records if record.gpu for note in record.gpu.notes()]


def _table(judgements: list[Judgement], *, narrow: bool) -> Table:
    table = Table(box=None, pad_edge=False, collapse_padding=narrow, header_style="bold")
    for name in ("backend", "quant", "device", "workload"):
        table.add_column(name)
    for name in ("t/s", "± 95 %", "baseline", "ratio", *(() if narrow else ("bounds", "finds", "parity"))):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for judgement in judgements:
        table.add_row(*_row(judgement, narrow=narrow))
    return table


def next_steps(session: Session, result: RunResult) -> list[str]:
    """What a person should do now, at most a sentence for each thing."""
    counts = Counter(judgement.verdict for judgement in result.judgements.values())
    shown = told_apart(judgement.item.case for judgement in result.judgements.values())
    steps = [*result.troubles]
    if result.saved is not None:
        steps += _saved(session, result, result.saved, shown)
    elif counts and not (session.settings.save != "no" and counts.keys() == {"NO-BASELINE"}):
        # Of a save that failed the trouble tells; that saving would help is no news then.
        steps.append(_verdict(session, result, counts))
    return [*steps, *_found_here(session, result, shown), *_noise_kept(result), *_both_ways(result, shown)]


def _name(judgement: Judgement, shown: Mapping[Case, Case]) -> str:
    return f"{shown[judgement.item.case].label} {judgement.item.workload}"


def _saved(session: Session, result: RunResult, saved: Saved, shown: Mapping[Case, Case]) -> list[str]:
    """What went into the baseline, what of it will be of no use there, and what did not."""
    steps = [] if saved.path is None else _stored(session, result, saved)
    steps += [f"Not saved: {told}." for told in saved.doubted]
    names = ", ".join(_name(one, shown) for one in saved.refused)
    if names:
        steps.append(f"Not saved, being regressions: {names}; --rwkv-save-baseline=replace accepts them.")
    return steps


def _stored(session: Session, result: RunResult, saved: Saved) -> list[str]:
    steps = [f"Saved {saved.stored} workloads to {saved.path}; commit it."]
    rates = [one.new for one in result.judgements.values() if one.new is not None]
    noisy = [rate for rate in rates if rate.half_width is None or rate.half_width > _NOISY]
    if noisy:
        steps.append(f"{len(noisy)} of them have an interval beyond ± {_NOISY:.0%}: save again on a quieter machine.")
    crowded = max((record.conditions.foreign for record in session.folder.new_records()), default=0.0)
    if crowded > MAX_CONTENTION:
        steps.append(
            f"Other processes took {crowded:.0%} of the processor meanwhile, and no verdict rests on such a session: "
            "save again when the machine is idle."
        )
    return steps


def _verdict(session: Session, result: RunResult, counts: Counter[Verdict]) -> str:
    """What follows from the gravest verdict."""
    if counts["REGRESSION"] and session.settings.ab:
        return f"Something is slower here than in {session.settings.ab}: rerun to confirm, then bisect."
    if counts["REGRESSION"]:
        return "Something got slower: rerun to confirm, then bisect; --rwkv-save-baseline=replace accepts it."
    if counts["INVALID"]:
        return "A figure is invalid; its test says why."
    if counts["NO-BASELINE"]:
        reasons = {judgement.reason for judgement in result.judgements.values() if judgement.verdict == "NO-BASELINE"}
        return f"No baseline to compare with: {min(reasons)}."
    if counts["INCONCLUSIVE"]:
        return _undecided(result)
    return "Nothing got slower than the tolerance allows."


def _undecided(result: RunResult) -> str:
    """What would bring a verdict: no budget does where none was possible whatever had been measured."""
    unsure = [one for one in result.judgements.values() if one.verdict == "INCONCLUSIVE"]
    if any(one.voided == "watched" for one in unsure):
        return "Somebody watches this process, so no verdict counts: run without that (pytest-cov: --no-cov)."
    if any(one.voided == "gpu" for one in unsure):
        return "A GPU was throttled or busy, which took verdicts away: run again when it is idle and cool."
    if all(one.comparison is not None and one.comparison.detectable is None for one in unsure):
        return (
            "The machine allowed no verdict, being crowded or its processors elsewhere, now or when the baseline was "
            "stored: run again when it is idle, or take --rwkv-ab; --rwkv-strict=inconclusive says more."
        )
    return "Noise hides the answer for some: raise --rwkv-budget, or --rwkv-tolerance."


def _both_ways(result: RunResult, shown: Mapping[Case, Case]) -> list[str]:
    """How far the tools' own ways of measuring lie from this project's, where the run has both."""
    rates = {
        (shown[one.item.case], str(one.item.workload)): one.new.median
        for one in result.judgements.values()
        if one.new is not None
    }
    told = native_ratio.sentence(rates)
    return [told] if told else []


def _found_here(session: Session, result: RunResult, shown: Mapping[Case, Case]) -> list[str]:
    """What the machine's noise leaves to be found: in A/A the point, else said where it is too much."""
    compared = [(one, one.comparison) for one in result.judgements.values() if one.comparison is not None]
    if session.settings.ab:
        found = [
            f"{_name(one, shown)} {'none' if found.detectable is None else f'{found.detectable:.1%}'}"
            for one, found in compared
        ]
        return [f"Smallest slowdown that such a run finds 19 times in 20: {', '.join(found)}."] if found else []
    # More sessions sharpen bounds that there are; those that were voided find nothing for another reason.
    finds = [(found.detectable, found.tolerance) for _, found in compared if found.detectable is not None]
    blunt = [slowdown for slowdown, tolerance in finds if slowdown > _BLUNT * tolerance]
    if not blunt:
        return []
    share = f"{len(blunt)} of {len(compared)} find only slowdowns of more than {_BLUNT} times the tolerance"
    finest = min(blunt)
    best = f" ({finest:.0%} at best)" if finest < _NOTHING else ""
    return [f"{share}{best}: more baseline sessions, --rwkv-aa once, or --rwkv-ab see more."]


def _noise_kept(result: RunResult) -> list[str]:
    """What an A/A run leaves for later verdicts."""
    if result.noise is None:
        return []
    spreads = ", ".join(f"{kind} {one.spread:.1%}" for kind, one in sorted(result.noise.noise.items()))
    return [f"Processes of the same code differ here by {spreads}; kept in {result.noise.path} for later verdicts."]


def _row(judgement: Judgement, *, narrow: bool) -> list[str | Text]:
    case, comparison = judgement.item.case, judgement.comparison
    bounds = f"{comparison.low:.2f}-{_high(comparison)}" if comparison else ""
    slowdown = comparison.detectable if comparison else None
    finds = f"{slowdown:.0%}" if slowdown is not None and slowdown < _NOTHING else ""
    width = judgement.new.half_width if judgement.new else None
    parity = f"{judgement.parity:.1e}" if judgement.parity is not None else ""
    return [
        # A Text is never read as rich's markup; these names may come from elsewhere.
        *map(Text, (case.backend, case.variant, case.device, str(judgement.item.workload))),
        _rate(judgement.new),
        f"{width:.1%}" if width is not None else "",
        _rate(judgement.old),
        f"{comparison.ratio:.3f}" if comparison else "",
        *([] if narrow else [bounds, finds, parity]),
        Text(judgement.verdict, style=_COLOURS[judgement.verdict]),
    ]


def _high(comparison: Comparison) -> str:
    return "inf" if comparison.high is None else f"{comparison.high:.2f}"


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return ""
    digits = 0 if rate.median >= 1000 else 1 if rate.median >= 100 else 2  # noqa: PLR2004 - four digits shown
    return f"{rate.median:.{digits}f}"
