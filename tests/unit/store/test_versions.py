"""Files of every schema version are read, and only a save gives them the newest form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.store import baseline as baselines
from pytest_rwkvperf.store import files

if TYPE_CHECKING:
    from collections.abc import Callable

VERSIONS = Path(__file__).with_name("versions")


def test_there_is_a_file_of_every_version() -> None:
    names = {path.name for path in VERSIONS.iterdir()}
    assert names == {f"{number}.json" for number in range(1, baselines.VERSION + 1)}


@pytest.mark.parametrize("number", range(1, baselines.VERSION + 1))
def test_a_file_of_an_earlier_release_is_read_whole(number: int) -> None:
    path = VERSIONS / f"{number}.json"
    baseline = baselines.loads(path.read_text("utf-8"), path)
    assert baseline.schema == baselines.VERSION
    assert [stored.case.backend for stored in baseline.cases.values()] == ["llama-cpp", "web-rwkv"]
    for stored in baseline.cases.values():
        assert [session.recorded for session in stored.sessions] == ["2026-11-20T10:00:00Z", "2026-11-21T10:00:00Z"]
        assert all(
            session.workloads == {"pp512": ((1_000_001, 1_000_002), (1_000_003,)), "tg128@d64": ((7,),)}
            for session in stored.sessions
        )


@pytest.mark.parametrize("number", range(1, baselines.VERSION + 1))
def test_reading_keeps_the_old_schema_and_saving_updates_it(
    number: int, tmp_path: Path, make_stored: Callable[..., baselines.StoredCase]
) -> None:
    old = (VERSIONS / f"{number}.json").read_bytes()
    machine = baselines.loads(old.decode(), tmp_path).fingerprint
    path = files.path_for(tmp_path, machine)
    path.write_bytes(old)
    files.read(path)
    assert path.read_bytes() == old
    files.save(tmp_path, machine, [make_stored("rwkv")], replacing=False)
    assert json.loads(path.read_text("utf-8"))["schema"] == baselines.VERSION
    assert len(json.loads(path.read_text("utf-8"))["cases"]) == 3
