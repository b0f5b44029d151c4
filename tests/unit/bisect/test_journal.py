"""A journal gives back what an earlier process found, and nothing that was cut short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.bisect.journal import Journal
from pytest_rwkvperf.bisect.outcome import Figures, Outcome

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

FIRST = Outcome("b", "a", "slower", figures=(Figures("q8_0", "tg128", "REGRESSION", 0.8, 0.7, None),), pairs=4)
SECOND = Outcome("c", "a", "unbuildable", "no")


def write(path: Path, *outcomes: Outcome) -> None:
    journal = Journal.open(path, resume=False)
    for outcome in outcomes:
        journal.outcome(outcome.state, outcome.against, lambda outcome=outcome: outcome)  # type: ignore[misc]


def never() -> Outcome:
    raise AssertionError("asked again")


def test_answers_come_back_in_another_process_and_stay_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "j.jsonl"
    write(path, FIRST, SECOND)
    for _ in range(2):
        again = Journal.open(path, resume=True)
        assert again.known == 2
        assert again.outcome("b", "a", never) == FIRST
        assert again.outcome("c", "a", never) == SECOND


def test_a_second_answer_about_a_state_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    write(path, FIRST)
    again = Journal.open(path, resume=True)
    again.outcome("b", "a", never)
    assert again.outcome("b", "a", lambda: SECOND) == SECOND
    assert Journal.open(path, resume=True).known == 2


def test_half_a_line_of_a_killed_process_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    write(path, FIRST, SECOND)
    path.write_bytes(path.read_bytes()[:-20])
    again = Journal.open(path, resume=True)
    assert again.outcome("b", "a", never) == FIRST
    assert again.outcome("c", "a", lambda: SECOND) == SECOND
    assert Journal.open(path, resume=True).known == 2


def test_without_resume_it_begins_again(tmp_path: Path) -> None:
    write(tmp_path / "j.jsonl", FIRST)
    assert Journal.open(tmp_path / "j.jsonl", resume=False).known == 0
    assert Journal.open(tmp_path / "j.jsonl", resume=True).known == 0


def test_a_full_disk_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pytest

    from pytest_rwkvperf.core.errors import StorageError

    journal = Journal.open(tmp_path / "j.jsonl", resume=False)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="--resume"):
        journal.outcome("b", "a", lambda: FIRST)
