"""Join the records of many machines: each run once, missing machines named, figures stored per machine."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import BaselineError, OptionError, RecordError, RwkvPerfError
from pytest_rwkvperf.stats.verdicts import MAX_SESSIONS
from pytest_rwkvperf.store import baseline as baselines
from pytest_rwkvperf.store import files
from pytest_rwkvperf.store import record as records
from pytest_rwkvperf.verdict import accept

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pytest_rwkvperf.store.baseline import Baseline, StoredCase
    from pytest_rwkvperf.store.record import Record


@dataclass(frozen=True, slots=True)
class Missing:
    """A machine or file without a usable record, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Merged:
    """The runs of a fleet, ordered by machine, and what is missing."""

    runs: tuple[Record, ...]
    missing: tuple[Missing, ...]

    @property
    def fails(self) -> bool:
        """Whether a run failed or something is missing."""
        return bool(self.missing) or any(run.exit_status for run in self.runs)


def read(paths: Sequence[Path], expected: int | None = None) -> Merged:
    """Read every record in these files, and in the `.json` files below these folders.

    Args:
        paths: files and folders.
        expected: the number of machines there should be.

    Raises:
        OptionError: a path does not exist, or there is no record at all.
    """
    named: list[tuple[str, Record]] = []
    missing: list[Missing] = []
    for path in _files(paths):
        try:
            named.append((str(path), records.read(path)))
        except RecordError as error:  # noqa: PERF203 - reading takes longer
            missing.append(Missing(path.name, str(error)))
    if not named and not missing:
        raise OptionError(f"no record in {', '.join(map(str, paths))}; give files that --rwkv-report=FILE.json wrote")
    return _joined(named, missing, expected)


def join(runs: Iterable[Record], missing: Iterable[Missing]) -> Merged:
    """Join records that have been read."""
    return _joined(((f"the record of {run.fingerprint.id}", run) for run in runs), missing, None)


def _joined(named: Iterable[tuple[str, Record]], missing: Iterable[Missing], expected: int | None) -> Merged:
    """Each run once, also if two CI artifacts contain it; of two different runs with one id, the first counts."""
    first: dict[str, tuple[str, Record]] = {}
    lost = [*missing]
    for name, run in named:
        known, other = first.setdefault(run.id, (name, run))
        if other != run:
            reason = f"{name} has the id of {known}, {run.id}, and other content, so it does not count: remove one"
            lost.append(Missing(f"another run {run.id[:8]}", reason))
    if expected is not None and (absent := expected - len(first) - len(lost)) > 0:
        lost.append(Missing(f"{absent} of {expected} machines", "no record of theirs was given"))
    runs = sorted((run for _, run in first.values()), key=lambda run: (run.fingerprint.id, run.started, run.id))
    return Merged(tuple(runs), tuple(lost))


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.rglob("*.json"))
        elif path.exists():
            yield path
        else:
            raise OptionError(f"{path} does not exist; give records, or folders with records in them")


def save(merged: Merged, folder: Path, *, replacing: bool, crowded: bool = False) -> tuple[list[Path], list[Missing]]:
    """Store each run's figures in its own machine's baseline; returns the files, and what could not be stored.

    As after a run, INVALID and voided figures are never stored, REGRESSION only when `replacing`, and what was measured
    while other processes were busy only when `crowded`. A session that is stored already is not stored again, so
    merging twice does no harm.
    """
    written: dict[Path, None] = {}
    failed: list[Missing] = []
    for run in merged.runs:
        try:
            path = _save_one(run, folder, replacing=replacing, crowded=crowded)
        except RwkvPerfError as error:  # noqa: PERF203 - one machine's error must not stop the others
            failed.append(Missing(run.fingerprint.id, str(error)))
        else:
            written.update({path: None} if path else {})
    return [*written], failed


def refusals(merged: Merged, *, crowded: bool) -> list[str]:
    """Sentences on the cases that `save` leaves out because of the machine's state while they were measured."""
    measured = ((run.fingerprint.id, case.case.label, case.measured) for run in merged.runs for case in run.cases)
    reasons = (
        (f"{name}: {label}", accept.refusal(record, crowded=crowded)) for name, label, record in measured if record
    )
    return [f"{name}: {reason}" for name, reason in reasons if reason]


def pushed_out(merged: Merged, folder: Path, *, crowded: bool) -> list[str]:
    """Sentences on the figures that `save`, appending, dropped because enough newer ones are stored."""
    sentences = []
    for run in merged.runs:
        baseline = None
        with suppress(BaselineError):  # `save` has reported it
            baseline = files.read(files.path_for(folder, run.fingerprint))
        if baseline is None:
            continue
        for case in _storable(run, replacing=False, crowded=crowded):
            if names := baseline.pushed_out(case):
                what = f"{run.fingerprint.id}: {case.case.label}, {', '.join(names)} of {run.started}"
                sentences.append(f"{what}: {MAX_SESSIONS} sessions that are newer or calmer are stored")
    return sentences


def _storable(run: Record, *, replacing: bool, crowded: bool) -> list[StoredCase]:
    """The figures of a run that may be stored, as one-session cases."""
    keep: dict[str, set[str]] = {}
    for case, item in run.items():
        if accept.is_accepted(item, replacing=replacing):
            keep.setdefault(case.case.key, set()).add(item.workload)
    measured = [case.measured for case in run.cases if case.measured is not None and case.old is None]
    sound = [record for record in measured if not accept.refusal(record, crowded=crowded)]
    return accept.stored_cases(sound, keep, run.started)


def _save_one(run: Record, folder: Path, *, replacing: bool, crowded: bool) -> Path | None:
    stored = _storable(run, replacing=replacing, crowded=crowded)

    def with_fresh(baseline: Baseline) -> Baseline:
        """Choose under the lock: another merge may have stored the same sessions meanwhile."""
        for case in stored:
            if (new := _fresh(case, baseline.cases.get(case.case.key), replacing=replacing)) is not None:
                baseline = baseline.with_case(new, replacing=replacing)
        return baseline

    return files.update(folder, run.fingerprint, with_fresh) if stored else None


def _fresh(case: StoredCase, known: StoredCase | None, *, replacing: bool) -> StoredCase | None:
    """The part of a new one-session case that the baseline lacks; None if it lacks nothing.

    Sessions are compared by their times in nanoseconds: the run may have saved them itself under another date, and some
    workloads of a stored session may have been removed since. When replacing, nothing else may be stored.
    """
    times = case.sessions[0].workloads
    stored = [session.workloads for session in known.sessions] if known else []
    if replacing:
        alone = all([other[name] for other in stored if name in other] == [times[name]] for name in times)
        return None if alone else case
    known_names = {name for name in times if any(other.get(name) == times[name] for other in stored)}
    sessions = baselines.without_workloads(case.sessions, known_names)
    return replace(case, sessions=sessions) if sessions else None
