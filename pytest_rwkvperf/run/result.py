"""The result of a run: its record, and where it was stored and reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_rwkvperf.core.cases import WorkloadKind
    from pytest_rwkvperf.store.baseline import Noise
    from pytest_rwkvperf.store.record import Record


@dataclass(frozen=True, slots=True)
class Saved:
    """What went into the baseline: the file, None where nothing did, and how many workloads."""

    path: Path | None
    stored: int
    ahead: str = ""
    """The date under which the sessions were stored, where that is later than this machine's clock."""


@dataclass(frozen=True, slots=True)
class KeptNoise:
    """What an A/A run stored, and where."""

    path: Path
    noise: Mapping[WorkloadKind, Noise]


@dataclass(frozen=True, slots=True)
class RunResult:
    """The end of a run, for the summary. There is no record of a run that only collected or had a usage error."""

    record: Record | None = None
    saved: Saved | None = None
    save_failed: bool = False
    """Whether the figures were to be stored and could not be: `troubles` says why."""
    noise: KeptNoise | None = None
    reports: tuple[Path, ...] = ()
    """The files that were written."""
    advice: tuple[str, ...] = ()
    """Lines that say what to do with the report files."""
    history: tuple[str, ...] = ()
    """Sentences that say whether the history has stored the run."""
    waited_seconds: float = 0.0
    """How long the run waited for devices that other runs used."""
    troubles: tuple[str, ...] = ()
    """What could not be saved, written or sent, in sentences."""
