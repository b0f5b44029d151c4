"""What of a run goes into this machine's baseline."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import atomic
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.environments import wheels
from pytest_rwkvperf.machine import fingerprint, observers
from pytest_rwkvperf.run.result import KeptNoise, Saved
from pytest_rwkvperf.store import files, recipe
from pytest_rwkvperf.verdict import accept

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.run.folder import RunFolder
    from pytest_rwkvperf.run.settings import Settings
    from pytest_rwkvperf.store.baseline import StoredCase
    from pytest_rwkvperf.verdict.judged import Judgement


def save(settings: Settings, folder: RunFolder, judgements: Collection[Judgement]) -> Saved | None:
    """Store a run's valid figures; None if nothing was judged valid; without a path if only refused cases were.

    Raises:
        RwkvPerfError: the baseline cannot be read or written.
    """
    check_unwatched(settings)
    replacing = settings.save == "replace"
    accepted = accept.accepted(judgements, replacing=replacing)
    measured = folder.records()
    records = [record for record in measured if not accept.refusal(record, crowded=settings.save_crowded)]
    now = _now()
    stored = accept.stored_cases(records, accepted, now)
    if not stored:
        return Saved(None, 0) if len(records) < len(measured) else None
    path = files.save(settings.baseline_dir, fingerprint.read(), stored, replacing=replacing)
    _save_recipe(settings, [record for record in records if record.case.key in accepted])
    count = sum(len(case.sessions[0].workloads) for case in stored)
    return Saved(path, count, _date_ahead(path, stored, now))


def _date_ahead(path: Path, stored: Iterable[StoredCase], now: str) -> str:
    """The latest date under which sessions of this run were stored; empty when that is now."""
    cases = baseline.cases if (baseline := files.read(path)) is not None else {}
    dates = [session.recorded for case in stored for session in cases[case.case.key].sessions]
    return max(dates) if max(dates) > now else ""


def _save_recipe(settings: Settings, records: Iterable[CaseRecord]) -> None:
    """Store beside the figures what they were measured with, and keep wheels of what no index has.

    Raises:
        RwkvPerfError: the recipe cannot be read or written, or a wheel not kept.
    """
    software = {record.case.backend: record.software for record in records if record.software is not None}
    recipe.save(settings.baseline_dir, software)
    if settings.keep_wheels is not None:
        for engine in software.values():
            wheels.keep(settings.keep_wheels, [each for each in engine.distributions if each.off_index])


def keep_noise(settings: Settings, folder: RunFolder) -> KeptNoise | None:
    """After an A/A run, store how much processes of the same code differ here; None when it has no figures for that.

    Crowded cases give none: what others did then says nothing about this machine.

    Raises:
        RwkvPerfError: the baseline cannot be read or written, or a record carries no figure.
    """
    noise = accept.noise_of([pairing for pairing in folder.pairings() if not pairing.new.crowded], _now())
    if not noise:
        return None
    return KeptNoise(files.save_noise(settings.baseline_dir, fingerprint.read(), noise), noise)


def check_folders(settings: Settings) -> None:
    """Check that a save at the end of the run can write its files.

    Raises:
        OptionError: a folder or file cannot be written.
    """
    stores = {"--rwkv-save-baseline": settings.save != "no", "--rwkv-aa": settings.aa}
    for option in (option for option, given in stores.items() if given):
        folder = settings.baseline_dir
        paths = [files.path_for(folder, fingerprint.read())]
        paths += [recipe.path_in(folder)] if option == "--rwkv-save-baseline" else []
        for path in paths:
            _check(path, f"{option} could not write {path}", "name another folder with --rwkv-baseline-dir")
        if settings.keep_wheels is not None and settings.save != "no":
            path = settings.keep_wheels / "wheel"
            _check(path, f"--rwkv-keep-wheels could not write to {settings.keep_wheels}", "name another folder")


def _check(path: Path, refusal: str, remedy: str) -> None:
    try:
        atomic.check_replaceable(path)
    except OSError as error:
        raise OptionError(f"{refusal}: {error}; make that possible, or {remedy}") from error


def check_unwatched(settings: Settings) -> None:
    """Refuse to store what is measured under a debugger, a coverage tool or the like.

    Raises:
        OptionError: the figures are to be stored, and could not be trusted.
    """
    if settings.save != "no" and (watchers := observers.names()):
        raise OptionError(
            f"--rwkv-save-baseline: this process runs under {' and '.join(watchers)}, so its figures do not count; "
            "save without it (pytest-cov: --no-cov)"
        )


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
