"""What a run ends with: its verdicts, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Item, WorkloadKind
    from pytest_rwkvperf.store.baseline import Noise
    from pytest_rwkvperf.verdict.judged import Judgement


@dataclass(frozen=True, slots=True)
class Saved:
    """What went into the baseline: the file, None where nothing did, and how many workloads."""

    path: Path | None
    stored: int
    refused: tuple[Judgement, ...] = ()
    """Regressions, which are stored only on request."""
    doubted: tuple[str, ...] = ()
    """Cases whose figures no verdict may rest on, each with the reason."""


@dataclass(frozen=True, slots=True)
class KeptNoise:
    """What an A/A run stored, and where."""

    path: Path
    noise: Mapping[WorkloadKind, Noise]


@dataclass(frozen=True, slots=True)
class RunResult:
    """The end of a run, for the summary."""

    judgements: Mapping[Item, Judgement]
    saved: Saved | None = None
    noise: KeptNoise | None = None
    reports: tuple[Path, ...] = ()
    """The files that were written."""
    history: tuple[str, ...] = ()
    """What became of the run in the history, in sentences."""
    troubles: tuple[str, ...] = ()
    """What could not be saved, written or sent, in sentences."""
