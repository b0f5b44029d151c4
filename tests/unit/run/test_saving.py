"""What a run stores of what it has measured."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.core.cases import Item, Workload
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.environments.named_builds import NamedBuild
from pytest_rwkvperf.machine import observers
from pytest_rwkvperf.measure.record import Pairing
from pytest_rwkvperf.run.folder import RunFolder
from pytest_rwkvperf.run.saving import check_folders, keep_noise, save
from pytest_rwkvperf.store import files
from pytest_rwkvperf.verdict.judged import Judgement
from tests.unit.building import CASE, SETTINGS, make_record, make_run, record_of, throttled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.run.result import Saved
    from pytest_rwkvperf.run.settings import Settings

CROWDED = 0.45
SOUND = make_record(make_run(pp16=[10**7] * 3))
THROTTLED = throttled(make_record(make_run(pp16=[10**7] * 3), case=replace(CASE, quant="f16")))


def saved(
    records: Sequence[CaseRecord], folder: Path, monkeypatch: pytest.MonkeyPatch, *, crowded: bool = False
) -> Saved | None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setattr(observers, "names", list)
    run = RunFolder(folder / "run")
    for record in records:
        run.keep(record.case, record)
    items = [Item(record.case, Workload("prefill", 16)) for record in records]
    settings = SimpleNamespace(save="append", save_crowded=crowded, baseline_dir=folder / "baselines", keep_wheels=None)
    judgements = [Judgement(item, "NO-BASELINE", "", 0.05) for item in items]
    return save(settings, run, judgements)  # type: ignore[arg-type]


def test_figures_of_a_throttled_gpu_are_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = saved([SOUND, THROTTLED], tmp_path, monkeypatch)
    assert found is not None
    assert found.path is not None
    baseline = files.read(found.path)
    assert baseline is not None
    assert (found.stored, [*baseline.cases]) == (1, [SOUND.case.key])


def test_without_storable_figures_no_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = saved([THROTTLED], tmp_path, monkeypatch)
    assert found is not None
    assert (found.path, found.stored) == (None, 0)
    assert not (tmp_path / "baselines").exists()


def beside_others(record: CaseRecord) -> CaseRecord:
    return replace(record, conditions=replace(record.conditions, foreign=CROWDED))


def test_what_was_measured_beside_busy_processes_is_stored_only_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowded = beside_others(SOUND)
    refused = saved([crowded], tmp_path, monkeypatch)
    assert refused is not None
    assert (refused.path, refused.stored) == (None, 0)
    assert not (tmp_path / "baselines").exists()
    asked = saved([crowded], tmp_path, monkeypatch, crowded=True)
    assert asked is not None
    assert asked.path is not None
    baseline = files.read(asked.path)
    assert baseline is not None
    assert baseline.cases[SOUND.case.key].sessions[0].foreign == CROWDED


@pytest.mark.parametrize("crowded", [False, True])
def test_a_crowded_a_a_run_leaves_no_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crowded: bool) -> None:  # noqa: FBT001 - a parameter
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run, measured = RunFolder(tmp_path / "run"), record_of([[10**7 + number] * 3 for number in range(4)], "pp16")
    side = beside_others(measured) if crowded else measured
    run.keep(side.case, Pairing(side, measured))
    settings = SimpleNamespace(baseline_dir=tmp_path / "baselines")
    assert (keep_noise(settings, run) is None) == crowded  # type: ignore[arg-type]
    assert (tmp_path / "baselines").exists() != crowded


def settings_of(folder: Path, **changed: Any) -> Settings:  # noqa: ANN401 - the settings' fields
    return replace(SETTINGS, baseline_dir=folder / "baselines", **changed)


@pytest.mark.parametrize(
    ("changed", "option"),
    [({"save": "append"}, "--rwkv-save-baseline"), ({"ab": NamedBuild("interpreter", sys.executable)}, "--rwkv-aa")],
)
def test_a_folder_that_a_save_could_not_write_to_is_refused(
    tmp_path: Path, changed: dict[str, Any], option: str
) -> None:
    check_folders(settings_of(tmp_path, **changed))
    assert [*tmp_path.iterdir()] == [], "the check left something"
    (tmp_path / "baselines").touch()
    with pytest.raises(
        OptionError, match=rf"^{option} could not write .*\.json: .*another folder with --rwkv-baseline-dir"
    ):
        check_folders(settings_of(tmp_path, **changed))
    check_folders(settings_of(tmp_path))


def test_a_file_or_folder_in_the_way_of_a_save_is_refused(tmp_path: Path) -> None:
    saving = settings_of(tmp_path, save="append", keep_wheels=tmp_path / "wheels")
    check_folders(saving)
    (tmp_path / "wheels").touch()
    with pytest.raises(OptionError, match=r"^--rwkv-keep-wheels could not write to .*wheels: .*or name another folder"):
        check_folders(saving)
    (tmp_path / "baselines" / "reference.json").mkdir(parents=True)
    with pytest.raises(OptionError, match=r"reference\.json: .*it is a folder.*make that possible, or name another"):
        check_folders(replace(saving, keep_wheels=None))


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_dangling_link_in_the_way_of_a_save_is_refused(tmp_path: Path) -> None:
    (tmp_path / "baselines").symlink_to("gone")
    with pytest.raises(OptionError, match="is a link to gone, which is not there"):
        check_folders(settings_of(tmp_path, save="replace"))
