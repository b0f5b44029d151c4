"""The record that a page shows, and the facts and troubles at the top of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.text import duration
from pytest_rwkvperf.reports import figures, headline, wording
from pytest_rwkvperf.reports.wording import SPACE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.store.record import Record, RecordedCase


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
