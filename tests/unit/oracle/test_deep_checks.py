"""The cache of passed deep checks, and what its key depends on."""

from __future__ import annotations

import pathlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.oracle import bounds, deep_checks
from pytest_rwkvperf.oracle.agreement import Agreement, Deep
from pytest_rwkvperf.oracle.bounds import Bound
from pytest_rwkvperf.oracle.deep_checks import DeepCheckCache
from tests.unit.building import CASE

if TYPE_CHECKING:
    from pathlib import Path

FOUND = Deep(Agreement(finite=True, relative_l2=1e-3, kl=1e-6, top_matches=None), 2e-4)
KEY: dict[str, Any] = {
    "engine": "1",
    "content_hash": "abc",
    "case": CASE,
    "device": Device("cpu", "CPU", "cpu"),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folders, "cache", lambda: tmp_path)
    return tmp_path


def test_empty_cache() -> None:
    assert DeepCheckCache(**KEY).load() is None


def test_stored_result_is_loaded() -> None:
    DeepCheckCache(**KEY).store(FOUND)
    assert DeepCheckCache(**KEY).load() == FOUND


@pytest.mark.parametrize(
    "other",
    [
        {"engine": "2"},
        {"content_hash": "abd"},
        {"case": replace(CASE, quant="f16")},
        {"device": Device("cpu", "CPU", "cpu", "driver 2")},
        {"case": replace(CASE, chunk=128)},
        {"case": replace(CASE, settings=(("ubatch", "8"),))},
    ],
)
def test_result_holds_for_one_engine_file_quant_device_chunk_and_settings(other: dict[str, Any]) -> None:
    DeepCheckCache(**KEY).store(FOUND)
    assert DeepCheckCache(**{**KEY, **other}).load() is None


def test_changed_rules_repeat_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    DeepCheckCache(**KEY).store(FOUND)
    with monkeypatch.context() as patch:
        patch.setattr(deep_checks, "DEPTH", 1200)
        assert DeepCheckCache(**KEY).load() is None
    with monkeypatch.context() as patch:
        patch.setitem(bounds.BOUNDS, ("llama-cpp", "f16"), Bound(1e-4))
        assert DeepCheckCache(**KEY).load() is None
    assert DeepCheckCache(**KEY).load() == FOUND


@pytest.mark.parametrize("text", ["", "{", "[]", '{"prefill": 1, "rechunked": 0}'])
def test_unreadable_result_is_ignored(text: str, cache: Path) -> None:
    DeepCheckCache(**KEY).store(FOUND)
    (note,) = (cache / "parity").iterdir()
    note.write_text(text, encoding="utf-8")
    assert DeepCheckCache(**KEY).load() is None


def test_a_result_of_another_user_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    DeepCheckCache(**KEY).store(FOUND)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(pathlib.Path, "read_bytes", refuse)
    assert DeepCheckCache(**KEY).load() is None
