"""What a baseline file holds. One file per hardware fingerprint, kept in git, so the text is made for diffs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from pytest_rwkvperf.core import strict_json
from pytest_rwkvperf.core.cases import Case, Workload, WorkloadKind
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.errors import BaselineError
from pytest_rwkvperf.machine.fingerprint import Fingerprint
from pytest_rwkvperf.stats.estimates import MAX_NANOSECONDS
from pytest_rwkvperf.stats.levels import SessionTimes, typical_handover
from pytest_rwkvperf.stats.verdicts import MAX_SESSIONS, StoredSessions
from pytest_rwkvperf.store.versioned import Format

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = 1


@dataclass(frozen=True, slots=True)
class BaselineEntry:
    """One saving run of a case: when, with what software, and nanoseconds per repetition by workload and process."""

    recorded: str
    versions: dict[str, str]
    protocol: int
    load_before: float
    steal: float
    workloads: dict[str, tuple[tuple[int, ...], ...]]
    probe_version: str = ""
    probes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Median nanoseconds of the fixed work beside the samples, by workload and process; empty without probes."""
    foreign: float = 0.0
    """Share of the processor time that the case's threads want which other processes left them without, 0..1."""
    handovers: dict[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    """Nanoseconds of the hand-over before each repetition, as `workloads`; empty with one thread."""

    def timed(self, workload: str, probe_version: str) -> SessionTimes:
        """A workload's times, with the probes beside them where they are of this version."""
        same = self.probe_version == probe_version
        probes = self.probes.get(workload, ()) if same else ()
        return SessionTimes(
            self.workloads[workload], probes, self.foreign, self.handovers.get(workload, ()) if same else ()
        )


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A case with its sessions, oldest first. Another model or device under the same name is another case."""

    case: Case
    model_hash: str
    device: Device
    sessions: tuple[BaselineEntry, ...] = ()

    def reference(self, workload: str) -> tuple[BaselineEntry, ...]:
        """The sessions to compare with: those that timed the workload with the newest one's software and protocol."""
        return next(iter(self._by_software(workload)), ())

    def sessions_of(self, workload: str, probe_version: str) -> StoredSessions:
        """A workload's sessions as the statistics take them; probes of another version are left out."""
        reference, *others = (
            [session.timed(workload, probe_version) for session in group] for group in self._by_software(workload)
        )
        return StoredSessions(reference, others)

    def _by_software(self, workload: str) -> list[tuple[BaselineEntry, ...]]:
        """The sessions that timed a workload in the newest one's protocol, by software versions, the newest first."""
        # By date, not by place: files are merged by hand and by git.
        having = [session for session in _by_date(self.sessions) if workload in session.workloads]
        groups: list[list[BaselineEntry]] = []
        for session in reversed([one for one in having if one.protocol == having[-1].protocol]):
            same = next((group for group in groups if group[0].versions == session.versions), None)
            if same is None:
                groups.append([session])
            else:
                same.append(session)
        return [tuple(reversed(group)) for group in groups]


@dataclass(frozen=True, slots=True)
class Noise:
    """What an A/A run saw of one kind of workload: how far processes of the same code lie apart.

    `spread` is the standard deviation of their log times, `freedom` its degrees of freedom.
    """

    recorded: str
    spread: float
    freedom: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """Everything stored for one machine."""

    fingerprint: Fingerprint
    schema: int = VERSION
    cases: dict[str, StoredCase] = field(default_factory=dict)
    noise: dict[WorkloadKind, Noise] = field(default_factory=dict)

    def nearest(self, threads: int) -> dict[str, float]:
        """The quickest hand-over that a stored session of so many threads was measured at, by the probes' version."""
        found: dict[str, float] = {}
        for stored in self.cases.values():
            for session in stored.sessions if stored.case.threads == threads else ():
                for rows in session.handovers.values():
                    found[session.probe_version] = min(
                        found.get(session.probe_version, math.inf), typical_handover(rows)
                    )
        return found

    def adding(self, stored: StoredCase, *, replacing: bool) -> Baseline:
        """With one case's new session appended, or in place of the workloads it timed; other cases stay as they are."""
        key = stored.case.key
        old = self.cases.get(key)
        # The device's detail holds the driver's version, which may change: software is under test.
        same = old is not None and (old.model_hash, old.device.name) == (stored.model_hash, stored.device.name)
        if old is not None and not same and not replacing:
            raise BaselineError(
                f"{key!r} is stored for another model content or device; nothing was saved: "
                "--rwkv-save-baseline=replace drops those sessions, another --rwkv-baseline-dir keeps them"
            )
        kept = old.sessions if old is not None and same else ()
        if replacing:
            kept = without(kept, {name for session in stored.sessions for name in session.workloads})
        sessions = _newest(_by_date((*kept, *stored.sessions)))
        return replace(self, cases={**self.cases, key: replace(stored, sessions=sessions)})


def _by_date(sessions: tuple[BaselineEntry, ...]) -> tuple[BaselineEntry, ...]:
    """Oldest first; `rwkvperf merge` may store an old run after a new one."""
    return tuple(sorted(sessions, key=lambda session: session.recorded))


def _newest(sessions: tuple[BaselineEntry, ...]) -> tuple[BaselineEntry, ...]:
    """Of each workload the newest MAX_SESSIONS: ten sessions of generations push out no prefill's only one."""
    counts: Counter[str] = Counter()
    kept: list[BaselineEntry] = []
    for session in reversed(sessions):
        counts.update(list(session.workloads))
        kept += without((session,), {name for name in session.workloads if counts[name] > MAX_SESSIONS})
    return tuple(reversed(kept))


def without(sessions: tuple[BaselineEntry, ...], workloads: set[str]) -> tuple[BaselineEntry, ...]:
    """Sessions less some workloads; a session left with none goes."""
    trimmed = (
        replace(
            session,
            workloads={name: runs for name, runs in session.workloads.items() if name not in workloads},
            probes={name: runs for name, runs in session.probes.items() if name not in workloads},
            handovers={name: runs for name, runs in session.handovers.items() if name not in workloads},
        )
        for session in sessions
    )
    return tuple(session for session in trimmed if session.workloads)


def _problem(baseline: Baseline) -> str:
    """Why no verdict may rest on a baseline; empty when one may."""
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
            return f"{key}, {workload} has unusable hand-overs"
    return ""


def _fits(times: Sequence[Sequence[int]], places: Sequence[Sequence[object]]) -> bool:
    """Whether usable times stand in all these places and nowhere else."""
    same = [len(row) for row in times] == [len(row) for row in places]
    return same and all(0 < value <= MAX_NANOSECONDS for row in times for value in row)


FORMAT = Format(
    "baseline",
    Baseline,
    VERSION,
    BaselineError,
    "restore it from version control or move it away; it was left as it is",
    _problem,
)
read, loads = FORMAT.read, FORMAT.loads


def dumps(baseline: Baseline) -> str:
    """Stable key order, two-space indent, one process's samples on one line."""
    return strict_json.dumps(msgspec.to_builtins(baseline), sort_keys=True)
