"""The content of a baseline file: one per hardware fingerprint, kept in git, so its text is made for diffs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cases import Case, Workload, WorkloadKind
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.errors import BaselineError
from pytest_rwkvperf.core.work import Reading
from pytest_rwkvperf.core.work import problem as work_problem
from pytest_rwkvperf.machine.fingerprint import Fingerprint
from pytest_rwkvperf.stats.estimates import MAX_NANOSECONDS, LogTimes, log_times
from pytest_rwkvperf.stats.levels import SessionTimes, drop_slow_handovers, typical_handover
from pytest_rwkvperf.stats.shrinkage import prior_of
from pytest_rwkvperf.stats.spread import Spread
from pytest_rwkvperf.stats.verdicts import MAX_CONTENTION, MAX_SESSIONS, StoredSessions
from pytest_rwkvperf.store.versioned import VersionedFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = 3
"""Version 2 added `software` to an entry, version 3 `settings` to a case."""


@dataclass(frozen=True, slots=True)
class BaselineEntry:
    """What one run stored of a case: when, with what software, and its times."""

    recorded: str
    """When its run stored it, or the date of the newest session before it where that is later (`dated_last`)."""
    versions: dict[str, str]
    protocol: int
    load_before: float
    steal: float
    workloads: dict[str, tuple[tuple[int, ...], ...]]
    """Nanoseconds per repetition, by workload and process."""
    probe_version: str = ""
    probes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Median nanoseconds of the probe by workload and process; empty without probes."""
    foreign: float = 0.0
    """Share, 0 to 1, of the processor time that the case's threads wanted and other processes took."""
    handovers: dict[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    """Nanoseconds of the handover before each repetition, as `workloads`; empty with one thread."""
    software: str = ""
    """What was loaded of the engine (`Software.identity`); empty in entries of earlier releases."""
    witnesses: tuple[Reading, ...] = ()
    """What counted the engine's work, with the workloads that are stored here."""

    @property
    def crowded(self) -> bool:
        """Whether other processes took so much of the processor that no comparison with these times is bounded."""
        return self.foreign > MAX_CONTENTION

    def log_times(self, workload: str) -> LogTimes:
        """The moments of a workload's times, without those taken while handovers were slow."""
        return log_times(drop_slow_handovers(self.session_times(workload, self.probe_version)).times)

    def session_times(self, workload: str, probe_version: str) -> SessionTimes:
        """A workload's times, with probes and handovers if they are of this version."""
        times = SessionTimes(self.workloads[workload], foreign=self.foreign)
        if self.probe_version != probe_version:
            return times
        return replace(times, probes=self.probes.get(workload, ()), handovers=self.handovers.get(workload, ()))


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A case with its sessions, oldest first, of one model content on one device."""

    case: Case
    model_hash: str
    device: Device
    sessions: tuple[BaselineEntry, ...] = ()

    def comparable_sessions(self, workload: str) -> tuple[BaselineEntry, ...]:
        """The sessions to compare with: those with the software versions and protocol of the workload's newest session.

        Crowded sessions are used only where the workload has no others, of any software.
        """
        return next(iter(self._by_software(workload)), ())

    def sessions_of(self, workload: str, probe_version: str) -> StoredSessions:
        """A workload's sessions as the statistics take them; probes of another version are left out."""
        reference, *others = (
            [session.session_times(workload, probe_version) for session in group]
            for group in self._by_software(workload)
        )
        return StoredSessions(reference, others)

    def _by_software(self, workload: str) -> list[tuple[BaselineEntry, ...]]:
        """A workload's sessions with the newest one's protocol, grouped by software versions, newest group first."""
        # Sorted here too: files are merged by hand and by git.
        every = [session for session in _by_date(self.sessions) if workload in session.workloads][::-1]
        newest_first = [session for session in every if not session.crowded] or every
        groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[BaselineEntry]] = {}
        for session in newest_first:
            if session.protocol == newest_first[0].protocol:
                groups.setdefault((session.software, tuple(sorted(session.versions.items()))), []).append(session)
        return [tuple(reversed(group)) for group in groups.values()]


@dataclass(frozen=True, slots=True)
class Noise:
    """How far processes of the same code lie apart in one kind of workload, as an A/A run measured it.

    `spread` is the standard deviation of their log times, `freedom` its degrees of freedom.
    """

    recorded: str
    spread: float
    freedom: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """Everything that is stored for one machine."""

    fingerprint: Fingerprint
    schema: int = VERSION
    cases: dict[str, StoredCase] = field(default_factory=dict)
    noise: dict[WorkloadKind, Noise] = field(default_factory=dict)

    def fastest_handovers(self, threads: int) -> dict[str, float]:
        """The fastest typical handover of a stored session with so many threads, by the probes' version."""
        fastest: dict[str, float] = {}
        for stored in self.cases.values():
            calm = (session for session in stored.sessions if not session.crowded)
            for session in calm if stored.case.threads == threads else ():
                known = fastest.get(session.probe_version, math.inf)
                for rows in session.handovers.values():
                    fastest[session.probe_version] = known = min(known, typical_handover(rows))
        return fastest

    def dated_last(self, stored: StoredCase) -> StoredCase:
        """A case of a run that ends now, dated so that its sessions are the newest.

        If stored sessions have later dates, the machine's clock was ahead then, or is behind now. Without this, such
        sessions would push out every session that is stored before their date.
        """
        old = self.cases.get(stored.case.key)
        newest = max((session.recorded for session in old.sessions), default="") if old is not None else ""
        sessions = (replace(session, recorded=max(newest, session.recorded)) for session in stored.sessions)
        return replace(stored, sessions=tuple(sessions))

    def pushed_out(self, stored: StoredCase) -> tuple[str, ...]:
        """The workloads of a new one-session case that were dropped when it was stored.

        MAX_SESSIONS sessions are kept of each workload; newer and calm ones replace older and crowded ones.
        """
        times = stored.sessions[0].workloads
        known = self.cases.get(stored.case.key)
        if known is None or known.model_hash != stored.model_hash:
            return ()  # it was refused, for another reason
        kept = [session.workloads for session in known.sessions]
        return tuple(name for name in times if not any(other.get(name) == times[name] for other in kept))

    def process_spread(self, kind: WorkloadKind) -> Spread:
        """How far processes of a case lie apart on this machine, by its calm sessions and an A/A run."""
        found = [
            Spread(moments.variance, moments.count - 1)
            for stored in self.cases.values()
            for session in stored.sessions
            if not session.crowded
            for name in session.workloads
            if Workload.parse(name).kind == kind
            if (moments := session.log_times(name)).count > 1
        ]
        if kind in self.noise:
            found.append(Spread(self.noise[kind].spread ** 2, self.noise[kind].freedom))
        return prior_of(found)

    def with_case(self, stored: StoredCase, *, replacing: bool) -> Baseline:
        """The baseline with a case's new session appended, or in place of the stored times of its workloads.

        Raises:
            BaselineError: the case is stored for another model content or device, and is not to be replaced.
        """
        key = stored.case.key
        old = self.cases.get(key)
        # Not the device's detail: it holds the driver's version, and software is what is under test.
        same = old is not None and (old.model_hash, old.device.name) == (stored.model_hash, stored.device.name)
        if old is not None and not same and not replacing:
            raise BaselineError(
                f"{key!r} is stored for another model content or device; nothing was saved: "
                "--rwkv-save-baseline=replace drops those sessions, another --rwkv-baseline-dir keeps them"
            )
        kept = old.sessions if old is not None and same else ()
        if replacing:
            kept = without_workloads(kept, {name for session in stored.sessions for name in session.workloads})
        sessions = _limited(_by_date((*kept, *stored.sessions)))
        return replace(self, cases={**self.cases, key: replace(stored, sessions=sessions)})


def _by_date(sessions: tuple[BaselineEntry, ...]) -> tuple[BaselineEntry, ...]:
    """Oldest first; `rwkvperf merge` may store an old run after a new one."""
    return tuple(sorted(sessions, key=lambda session: session.recorded))


def _limited(sessions: tuple[BaselineEntry, ...]) -> tuple[BaselineEntry, ...]:
    """The newest MAX_SESSIONS of each workload, counted apart: many sessions of one workload drop none of another.

    Crowded ones are dropped first: they must not push out sessions that verdicts rest on.
    """
    counts: Counter[str] = Counter()
    kept: list[BaselineEntry] = []
    newest_first = sessions[::-1]
    for session in sorted(newest_first, key=lambda session: session.crowded):
        counts.update(list(session.workloads))
        kept += without_workloads((session,), {name for name in session.workloads if counts[name] > MAX_SESSIONS})
    return _by_date(tuple(kept[::-1]))


def without_workloads(sessions: tuple[BaselineEntry, ...], workloads: set[str]) -> tuple[BaselineEntry, ...]:
    """Sessions without some workloads; a session left with none is dropped."""
    trimmed = (
        replace(
            session,
            workloads={name: runs for name, runs in session.workloads.items() if name not in workloads},
            probes={name: runs for name, runs in session.probes.items() if name not in workloads},
            handovers={name: runs for name, runs in session.handovers.items() if name not in workloads},
            witnesses=tuple(reading.without(workloads) for reading in session.witnesses),
        )
        for session in sessions
    )
    return tuple(session for session in trimmed if session.workloads)


def _problem(baseline: Baseline) -> str:
    """Why a baseline's content is unusable; empty if it is usable."""
    for kind, noise in baseline.noise.items():
        if not (0 < noise.spread <= math.log(MAX_NANOSECONDS) and noise.freedom >= 1):  # no times lie further apart
            return f"{noise.spread} from {noise.freedom:g} is no spread of {kind} times"
    for key, stored in baseline.cases.items():
        if key != stored.case.key:
            return f"case {key!r} describes {stored.case.key!r}"
        for session in stored.sessions:
            if problem := _times_problem(session, key):
                return problem
    return ""


def _times_problem(session: BaselineEntry, key: str) -> str:
    for workload, runs in session.workloads.items():
        if not Workload.is_name(workload):
            return f"{key!r} holds {workload!r}, which names no workload"
        if not runs or not all(runs) or not _fits(runs, runs):
            return f"{key!r}, {workload!r} holds no usable times"
    for workload, probed in session.probes.items():
        if not _fits([probed], [session.workloads.get(workload, ())]):
            return f"{key}, {workload} has unusable probe times"
    for workload, rows in session.handovers.items():
        if not _fits(rows, session.workloads.get(workload, ())):
            return f"{key}, {workload} has unusable handovers"
    return work_problem(session.witnesses)


def _fits(times: Sequence[Sequence[int]], like: Sequence[Sequence[object]]) -> bool:
    """Whether times are usable and have the same shape as other rows."""
    same_shape = [len(row) for row in times] == [len(row) for row in like]
    return same_shape and all(0 < value <= MAX_NANOSECONDS for row in times for value in row)


FORMAT = VersionedFormat(
    "baseline",
    Baseline,
    VERSION,
    BaselineError,
    "restore it from version control or move it away; it was left as it is",
    _problem,
)
loads = FORMAT.loads
dumps = FORMAT.dumps
