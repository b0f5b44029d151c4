"""`rwkvperf history` on an SQLite file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.cli.main import main
from pytest_rwkvperf.history import address, spool
from pytest_rwkvperf.history.database import Database
from pytest_rwkvperf.reports import figures
from pytest_rwkvperf.store import record as records
from tests.unit.history.conftest import run_number, stored, unflushed
from tests.unit.history.test_trends import runs_with_step
from tests.unit.reports.test_html import Parsed

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["unflushed"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.fixture
def history(here: Path) -> str:
    stored(address.parse("history.db", here), runs_with_step(24, 24))
    return "history.db"


def test_a_list_has_every_run_and_workload(history: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "list", history]) == 0
    out = capsys.readouterr().out
    assert out.count("2026-0") == 36
    assert "llama-cpp | synthetic:nano | q8_0 | cpu | threads=2 chunk=512 | pp512" in out


def test_a_trend_is_plotted_with_its_change_point_named(history: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "trend", history, "PP512"]) == 0
    out = capsys.readouterr().out
    assert "│" in out
    assert "from run 25 on (2026-01-25T12:00:00Z" in out
    assert "llama.cpp b1 -> b2" in out
    assert max(map(len, out.splitlines()[:14])) <= 80


def test_a_page_has_every_point_and_change_point(history: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "trend", history, "-o", "trend.html"]) == 0
    assert capsys.readouterr().out == "trend.html\n"
    text = (here / "trend.html").read_text(encoding="utf-8")
    page = Parsed(text)
    (((_, points),)) = Database(address.parse(history, here)).series().items()
    speeds = [row[4] for row in page.tables["Figures of every run"][1:]]
    assert speeds == [figures.speed(point.tokens_per_second) for point in points]
    drawn = {str(own["class"]): str(own["d"]) for tag, own, _ in page.elements if tag == "path"}
    assert drawn["trend"].count("M") == len(points)
    assert drawn["change-point"] == "M23.5 0V100"
    assert drawn["level"].count("M") == 2
    assert "from run 25 on (2026-01-25T12:00:00Z, 00000000): 8.0% slower" in text
    assert "llama.cpp b1 -&gt; b2" in text


def test_a_page_is_written_into_a_new_folder(history: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "trend", history, "-o", "new/folder/trend.html"]) == 0
    (here / "file").touch()
    capsys.readouterr()
    assert main(["history", "trend", "no.db", "-o", "file/trend.html"]) == 2
    err = capsys.readouterr().err
    assert "-o file/trend.html cannot be written" in err
    assert ".tmp" not in err


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_page_is_written_through_a_link(history: str, here: Path) -> None:
    (here / "page.html").touch()
    (here / "link.html").symlink_to("page.html")
    assert main(["history", "trend", history, "-o", "link.html"]) == 0
    assert (here / "link.html").is_symlink()
    assert (here / "page.html").read_text("utf-8").startswith("<!")


def test_changes_of_all_workloads_are_listed(history: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "changes", history]) == 0
    assert "1 change point in 1 workload." in capsys.readouterr().out
    assert main(["history", "changes", history, "--at-least=10%"]) == 0
    assert "0 change points in 1 workload." in capsys.readouterr().out


def test_an_added_record_is_printed_unchanged(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = records.dumps(run_number(7))
    (here / "run.json").write_text(text, encoding="utf-8")
    for message in ("1 run stored", "0 runs stored"):
        assert main(["history", "add", "sub/new.db", "run.json"]) == 0
        assert message in capsys.readouterr().out
    assert main(["history", "record", "sub/new.db", "0000"]) == 0
    assert capsys.readouterr().out == text


def test_only_another_run_with_a_stored_id_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [run_number(1), run_number(1, seconds=2.0), run_number(2)]
    for number, record in enumerate(given):
        (here / f"{number}.json").write_text(records.dumps(record), "utf-8")
    assert main(["history", "add", "new.db", "0.json", "1.json", "2.json"]) == 1
    out, err = capsys.readouterr()
    assert "2 runs stored" in out
    assert "1.json: run " in err


def test_waiting_runs_are_counted_and_sent(history: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = address.parse(history, here)
    spool.keep(run_number(99), spool.folder(place))
    assert main(["history", "list", history]) == 0
    assert f"Not sent yet: 1 run in {spool.folder(place)}" in capsys.readouterr().out
    assert main(["history", "send", history]) == 0
    assert "1 run stored" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("list", "none.db"), 1, "there is no history sqlite:///"),
        (("send", "none.db"), 1, "there is no history sqlite:///"),
        (("trend", "history.db", "tg128"), 2, "no workload's name contains 'tg128'"),
        (("trend", "history.db", "-o", "none.txt"), 2, "-o none.txt: write a file ending in .html"),
        (("changes", "history.db", "--at-least", "5"), 2, "--at-least='5' is not a share between 0 and 100 %"),
        (("record", "history.db", ""), 1, "more than one run of sqlite:///"),
        (("record", "history.db", "f"), 1, "no run of sqlite:///"),
        (("list", "mysql://me:hush@host/db"), 2, "the history's database 'mysql' is unknown"),
        (("send", "postgresql://me:hush@127.0.0.1:1/db"), 1, "the history postgresql://me:***@127.0.0.1:1/db failed"),
    ],
)
def test_invalid_arguments_are_refused(
    arguments: tuple[str, ...], status: int, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(address.parse("history.db", here), [run_number(1), run_number(2)])
    assert main(["history", *arguments]) == status
    captured = capsys.readouterr()
    assert captured.err.startswith(f"rwkvperf: {message}")
    if status == 2:
        separator = "\n" if captured.err.count("\n") > 1 else "; "
        assert captured.err.endswith(f"{separator}see rwkvperf history --help\n")
    assert "hush" not in captured.err + captured.out
    assert not [*here.glob("none.*")]
