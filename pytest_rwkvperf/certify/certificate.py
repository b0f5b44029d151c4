"""The certificate: every trial, and what they show of how often and how soon the gate decides on this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from pytest_rwkvperf.certify.trials import Trial
from pytest_rwkvperf.core.errors import CertificateError
from pytest_rwkvperf.machine.fingerprint import Fingerprint
from pytest_rwkvperf.store.versioned import VersionedFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = 1

CONFIDENCE = 0.95

_LATE = 0.95
"""The quantile of the times to decide that is shown beside their median."""

_PASSED = ("PASS", "IMPROVEMENT")
_DECIDED = (*_PASSED, "REGRESSION")


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `total`, with the bounds of Clopper and Pearson (Biometrika 26, 1934) at CONFIDENCE, two-sided."""

    count: int
    total: int
    low: float
    high: float

    @classmethod
    def of(cls, count: int, total: int) -> Share:
        """The share with its bounds; of nothing, anything is possible."""
        if not total:
            return cls(0, 0, 0.0, 1.0)
        from scipy.stats import binomtest

        interval = binomtest(count, total).proportion_ci(CONFIDENCE, method="exact")
        return cls(count, total, float(interval.low), float(interval.high))

    def __str__(self) -> str:
        return f"{self.count} of {self.total} ({self.low:.0%} to {self.high:.0%})"


@dataclass(frozen=True, slots=True)
class TrialSummary:
    """What the trials with one planted slowdown show.

    `runs_called` are the runs with a REGRESSION anywhere: false alarms where nothing was planted. `workloads_called`
    counts single workloads, `passed` those with PASS or IMPROVEMENT, and the rest is open. Seconds are of whole runs,
    with pytest's start; of those in which every workload got a decision.
    """

    slowdown: float
    runs_called: Share
    workloads_called: Share
    passed: Share
    decided_runs: int
    median_seconds: float | None
    late_seconds: float | None


@dataclass(frozen=True, slots=True)
class Subject:
    """What a certificate is about. Trials of different subjects are not added up."""

    backend: str
    versions: dict[str, str]
    software: str
    """The identity of what was loaded (`core.software`), with nothing planted."""
    options: tuple[str, ...]
    machine: Fingerprint
    project_version: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """Trials of one subject since `started` (UTC, ISO 8601). `tolerance` is the gate's, a share of the time."""

    subject: Subject
    started: str
    tolerance: float
    trials: tuple[Trial, ...] = ()
    shown: tuple[TrialSummary, ...] = ()
    """What the trials show, by planted slowdown; it follows from them and is written for readers of the file."""
    schema: int = VERSION

    def with_trial(self, trial: Trial) -> Certificate:
        """The certificate with one more trial, and what all of them show now."""
        trials = (*self.trials, trial)
        return replace(self, trials=trials, shown=summaries(trials))

    def next_slowdown(self, slowdowns: Sequence[float]) -> float:
        """What to plant next: the one with the fewest trials, so that all take turns; the first of several."""
        counts = {slowdown: sum(trial.slowdown == slowdown for trial in self.trials) for slowdown in slowdowns}
        return min(counts, key=lambda slowdown: counts[slowdown])


FORMAT = VersionedFormat(
    "certificate",
    Certificate,
    VERSION,
    CertificateError,
    "move it away, or name another folder with --out",
    lambda _: "",
    clean=True,
)


def summaries(trials: Sequence[Trial]) -> tuple[TrialSummary, ...]:
    """What trials show, by planted slowdown, the smallest first."""
    return tuple(
        _summary(slowdown, [trial for trial in trials if trial.slowdown == slowdown])
        for slowdown in sorted({trial.slowdown for trial in trials})
    )


def _summary(slowdown: float, trials: Sequence[Trial]) -> TrialSummary:
    verdicts = [item.verdict for trial in trials for item in trial.items]
    called = [any(item.verdict == "REGRESSION" for item in trial.items) for trial in trials]
    decided = sorted(trial.seconds for trial in trials if all(item.verdict in _DECIDED for item in trial.items))
    return TrialSummary(
        slowdown=slowdown,
        runs_called=Share.of(sum(called), len(trials)),
        workloads_called=Share.of(verdicts.count("REGRESSION"), len(verdicts)),
        passed=Share.of(sum(verdict in _PASSED for verdict in verdicts), len(verdicts)),
        decided_runs=len(decided),
        median_seconds=median(decided) if decided else None,
        late_seconds=decided[min(len(decided) - 1, int(_LATE * len(decided)))] if decided else None,
    )


def paragraph(certificate: Certificate) -> str:
    """What the certificate shows, in words to paste into a README."""
    subject, machine = certificate.subject, certificate.subject.machine
    version = next(iter(subject.versions.values()), "")
    gpus = "".join(f", {gpu}" for gpu in machine.gpus)
    intro = (
        f"Performance gate certified on {machine.cpu} ({machine.physical_cores} cores{gpus}) from "
        f"{certificate.started[:10]}, with pytest-rwkvperf {subject.project_version} and {subject.backend} {version} "
        f"({' '.join(subject.options)}; tolerance {certificate.tolerance:.0%})."
    )
    parts = [intro]
    for shown in certificate.shown:
        if not shown.slowdown:
            parts.append(f"False alarms with an unchanged engine: {shown.runs_called} runs.")
        else:
            parts.append(
                f"Planted slowdown of {shown.slowdown:.0%}: found in {shown.workloads_called} workloads, passed "
                f"in {shown.passed.count}."
            )
    seconds = [trial.seconds for trial in certificate.trials]
    decided = sum(shown.decided_runs for shown in certificate.shown)
    if decided:
        times = [shown.median_seconds for shown in certificate.shown if shown.median_seconds is not None]
        parts.append(
            f"A run took {median(seconds):.0f} s (median); every workload was decided in {decided} of {len(seconds)} "
            f"runs, within {min(times):.0f} to {max(times):.0f} s (medians by slowdown)."
        )
    parts.append(f"Ranges are Clopper and Pearson's at {CONFIDENCE:.0%}.")
    return " ".join(parts)


def table(certificate: Certificate) -> str:
    """What the trials show, as a markdown table."""
    lines = [
        "| planted | runs | runs with a REGRESSION | workloads called | workloads passed | decided in (median, 95 %) |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for shown in certificate.shown:
        planted = f"{shown.slowdown:.0%}" if shown.slowdown else "nothing"
        times = (
            f"{shown.median_seconds:.0f} s, {shown.late_seconds:.0f} s ({shown.decided_runs} runs)"
            if shown.median_seconds is not None and shown.late_seconds is not None
            else "no run"
        )
        cells = [planted, shown.runs_called.total, shown.runs_called, shown.workloads_called, shown.passed, times]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"
