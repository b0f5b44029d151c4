"""The section at the end of a run: tables, and sentences about what to do next."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.text import counted, duration, printable
from pytest_rwkvperf.reports import figures, native_ratio, terminal_tables
from pytest_rwkvperf.reports.figures import UNBOUNDED, item_name, number
from pytest_rwkvperf.reports.headline import INTERRUPTED
from pytest_rwkvperf.run import advice
from pytest_rwkvperf.stats.verdicts import MAX_CONTENTION
from pytest_rwkvperf.verdict import accept

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from pytest_rwkvperf.run.result import KeptNoise, RunResult, Saved
    from pytest_rwkvperf.run.settings import Settings
    from pytest_rwkvperf.stats.verdicts import Verdict
    from pytest_rwkvperf.store.record import Record, RecordedCase

_NOISY = 0.10
"""A saved rate with a wider interval (half-width) gets a warning: it makes every later verdict INCONCLUSIVE."""

_COARSE = 2
"""A comparison is called too coarse if it detects only slowdowns of more than this many times the tolerance."""


def write(reporter: pytest.TerminalReporter, result: RunResult, settings: Settings) -> None:
    """Print the section through pytest's reporter, so that capturing and xdist work; nothing if there is no result."""
    record = result.record.disambiguated() if result.record else None
    judged = record is not None and any(case.invariants or _judged(case) for case in record.cases)
    measured = record is not None and any(item.rate for _, item in record.items())
    saving = record is not None and settings.save != "no"
    told = result.troubles or result.reports or result.history or result.waited_seconds
    if not (judged or measured or saving or told):
        return
    reporter.write_sep("=", "RWKV-7 throughput")
    steps: list[str] = []
    if record:
        writer = reporter.config.get_terminal_writer()
        width, colour = writer.fullwidth, writer.hasmarkup
        tables = (
            terminal_tables.verdicts(record.items(), width, colour=colour),
            terminal_tables.invariants(record, width, colour=colour),
            terminal_tables.scaling(record, width),
            terminal_tables.cases(record, width),
            terminal_tables.gpus(record, width),
        )
        reporter.write("\n".join(filter(None, tables)))
        notes = filter(None, (figures.mixed_rates(record), _not_judged(record)))
        for sentence in [*notes, *_gpu_notes(record), *figures.work_notes(record)]:
            reporter.write_line(printable(sentence, keep="\n"))
        steps = next_steps(record, result, settings) if judged or saving else []
    if result.waited_seconds:
        waited = duration(result.waited_seconds)
        steps.append(f"Of the run's time, {waited} went into waiting for other runs that measured on the same device.")
    reports = [*(f"Wrote {path}" for path in result.reports), *result.advice]
    for sentence in [*result.troubles, *steps, *reports, *result.history]:
        reporter.write_line(printable(sentence, keep="\n"))


def _judged(case: RecordedCase) -> bool:
    return any(item.verdict for item in case.items)


def _not_judged(record: Record) -> str:
    """Which workloads were measured alone; empty if none."""
    alone = [(case, item) for case, item in record.items() if item.rate and not item.verdict and not case.invariants]
    names = [item_name(case, item) for case, item in alone]
    return f"Measured, not judged (no test called check() for it): {', '.join(names)}." if names else ""


def _gpu_notes(record: Record) -> list[str]:
    """What was wrong with the GPUs while the cases were measured."""
    watched = ((case.case.label, case.measured.gpu) for case in record.cases if case.measured and case.measured.gpu)
    return [f"{label}: {note}." for label, gpu in watched for note in gpu.notes()]


def next_steps(record: Record, result: RunResult, settings: Settings) -> list[str]:
    """What the user should do now, at most one sentence per subject."""
    counts = Counter(item.verdict for _, item in record.items() if item.verdict)
    steps: list[str] = []
    if settings.save != "no" and not result.save_failed:
        steps += _saved(record, result.saved, settings)
    elif counts and (settings.save == "no" or counts.keys() != {"NO-BASELINE"}):
        # If a save failed, its trouble is told; the advice to save would be of no use.
        steps += _gravest(record, counts, settings)
    steps += [*_invariants(record), *_detectable(record, settings)]
    if result.noise is not None:
        steps.append(_noise(result.noise))
    elif settings.aa and any(case.measured and case.measured.crowded for case in record.cases):
        steps.append(
            "How much processes of the same code differ was not kept: other processes took more than "
            f"{MAX_CONTENTION:.0%} of the processor meanwhile. Run --rwkv-aa again when they have ended."
        )
    ratios = native_ratio.sentence(record)
    return [*steps, ratios] if ratios else steps


def _invariants(record: Record) -> list[str]:
    """What the gravest verdict on an invariant means."""
    found = [(case.case.label, each) for case in record.cases for each in case.invariants]
    if broken := [f"{label} {each.name}" for label, each in found if each.verdict == "BROKEN"]:
        why = "RWKV's state has one size, so this is the engine's doing, on any machine"
        return [f"Broken: {', '.join(broken)}. {why}; the tests say how much."]
    if any(each.verdict == "INVALID" for _, each in found):
        return ["An invariant's figures are invalid; its test says why."]
    if any(each.verdict == "INCONCLUSIVE" for _, each in found):
        return ["Noise hides whether some invariants hold: raise --rwkv-budget, or --rwkv-tolerance."]
    return ["Every invariant holds."] if found else []


def _saved(record: Record, saved: Saved | None, settings: Settings) -> list[str]:
    """Sentences on what was stored in the baseline, which of it is too uncertain, and what was not stored and why."""
    if saved is not None and saved.path is not None:
        steps = _stored(record, saved, saved.path, settings)
    else:
        steps = [f"Nothing was saved{_why_nothing_saved(record)}."]
    sides = [(case.case.label, case.measured) for case in record.cases if case.measured]
    refusals = ((label, accept.refusal(measured, crowded=settings.save_crowded)) for label, measured in sides)
    steps += [f"Not saved: {label}: {reason}." for label, reason in refusals if reason]
    regressions = [item_name(case, item) for case, item in record.items() if item.verdict == "REGRESSION"]
    if regressions and settings.save != "replace":
        names = ", ".join(regressions)
        steps.append(f"Regressions are not saved: {names}; --rwkv-save-baseline=replace accepts them.")
    return steps


def _why_nothing_saved(record: Record) -> str:
    """The reason where no other sentence says it."""
    if record.exit_status == INTERRUPTED:
        return ": the run was interrupted before a workload that can be saved had its verdict"
    if any(item.verdict == "INVALID" for _, item in record.items()):
        return ": a figure is invalid; its test says why"
    return ""


def _stored(record: Record, saved: Saved, path: Path, settings: Settings) -> list[str]:
    crowded = max((case.measured.conditions.foreign for case in record.cases if case.measured), default=0.0)
    as_asked = crowded > MAX_CONTENTION and settings.save_crowded
    steps = [f"Saved {counted(saved.stored, 'workload')} to {path}{'' if as_asked else '; commit it'}."]
    if saved.ahead:
        steps.append(
            f"Stored sessions are dated up to {saved.ahead}, later than this machine's clock: this one was stored "
            "under that date, as the newest. Check the clock."
        )
    rates = [rate for _, item in record.items() if item.verdict and (rate := item.typical_rate)]
    noisy = [rate for rate in rates if rate.half_width is None or rate.half_width > _NOISY]
    if noisy:
        having = "has" if len(noisy) == 1 else "have"
        wide = f"{len(noisy)} of them {having} an interval beyond ± {_NOISY:.0%}"
        steps.append(f"{wide}: save again on a quieter machine.")
    if as_asked:
        steps.append(
            f"Other processes took {crowded:.0%} of the processor meanwhile. The session is stored as you asked; no "
            "verdict rests on it, and it is not used once a calm one is stored."
        )
    return steps


def _gravest(record: Record, counts: Counter[Verdict], settings: Settings) -> list[str]:
    """What follows from the gravest verdict."""
    if counts["REGRESSION"] and settings.ab:
        return [f"Something is slower here than with {settings.ab}: rerun to confirm, then bisect."]
    if counts["REGRESSION"]:
        return ["Something got slower: rerun to confirm, then bisect; --rwkv-save-baseline=replace accepts it."]
    if counts["INVALID"]:
        return ["A figure is invalid; its test says why."]
    if counts["NO-BASELINE"]:
        reason = min(item.reason for _, item in record.items() if item.verdict == "NO-BASELINE")
        return [f"No baseline to compare with: {reason}."]
    if counts["INCONCLUSIVE"]:
        return advice.inconclusive(record)
    return ["Nothing got slower than the tolerance allows."]


def _detectable(record: Record, settings: Settings) -> list[str]:
    """The smallest slowdowns that this machine's noise lets a run detect: in A/B all, else those that are too large."""
    compared = [(case, item, item.comparison) for case, item in record.items() if item.comparison]
    if settings.ab:
        slowdowns = ", ".join(
            f"{item_name(case, item)} {number(comparison.detectable, '.1%') or 'none'}"
            for case, item, comparison in compared
        )
        return [f"Smallest slowdown that such a run detects 19 times in 20: {slowdowns}."] if slowdowns else []
    by_stored = [each for _, item, each in compared if item.step == "stored"]
    # More sessions narrow bounds that exist; a voided comparison has none.
    detectable = [(each.detectable, each.tolerance) for each in by_stored if each.detectable is not None]
    coarse = [slowdown for slowdown, tolerance in detectable if slowdown > _COARSE * tolerance]
    if not coarse:
        return []
    detect = "detects" if len(coarse) == 1 else "detect"
    share = f"{len(coarse)} of {len(by_stored)} {detect} only slowdowns of more than {_COARSE} times the tolerance"
    best = f" ({min(coarse):.0%} at best)" if min(coarse) < UNBOUNDED else ""
    return [f"{share}{best}: more baseline sessions, --rwkv-aa once, or --rwkv-ab see more."]


def _noise(noise: KeptNoise) -> str:
    """What an A/A run stored for later verdicts."""
    spreads = ", ".join(f"{kind} {stored.spread:.1%}" for kind, stored in sorted(noise.noise.items()))
    return f"Processes of the same code differ here by {spreads}; kept in {noise.path} for later verdicts."
