"""Records, baselines and histories that a stranger wrote: no command shows or writes what a terminal would obey."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.cli.main import main
from pytest_rwkvperf.core.errors import BaselineError
from pytest_rwkvperf.history import address
from pytest_rwkvperf.history.database import Database
from pytest_rwkvperf.reports import formats
from pytest_rwkvperf.run import collection
from pytest_rwkvperf.store import baseline as baselines
from pytest_rwkvperf.store import record as records
from pytest_rwkvperf.verdict.accept import stored_cases
from tests.unit.building import make_record, make_run, recorded, report_record

if TYPE_CHECKING:
    from pathlib import Path

OBEYED = "\x1b[2J\x1b]0;owned\x07\x9b\u202e"
MEASURED = make_record(*(make_run(pp16=[10**7, 10**7 + 9]) for _ in range(3)))
GOOD = report_record(recorded(MEASURED))
WORDS = {"verdict", "workload", "ended_by", "kind", "protocol", "id"}
"""Keys whose values are words of the format's own, which the reader checks; and a run's name."""


def spoilt(value: Any, key: str = "") -> Any:  # noqa: ANN401 - JSON
    """The same with every free text ending in what a terminal obeys."""
    if isinstance(value, dict):
        return {name: spoilt(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [spoilt(one, key) for one in value]
    return value + OBEYED if isinstance(value, str) and key not in WORDS else value


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    raw = spoilt(json.loads(records.dumps(GOOD)))
    (tmp_path / "hostile.json").write_text(json.dumps(raw), "utf-8")
    (tmp_path / "again.json").write_text(json.dumps({**raw, "id": "e" * 32}), "utf-8")
    (tmp_path / "good.json").write_text(records.dumps(GOOD), "utf-8")
    raw["cases"][0]["case"]["device"] = OBEYED
    (tmp_path / "broken.json").write_text(json.dumps(raw), "utf-8")
    case = replace(MEASURED.case, backend=OBEYED, quant=OBEYED)
    (stored,) = stored_cases([replace(MEASURED, case=case)], {case.key: {"pp16"}}, OBEYED)
    baseline = baselines.Baseline(GOOD.fingerprint).with_case(stored, replacing=False)
    (tmp_path / "baseline.json").write_text(baselines.dumps(baseline), "utf-8")
    return tmp_path


def harmless(text: str) -> bool:
    return not [letter for letter in OBEYED if not letter.isprintable() and letter in text]


REPORTS = [["report", "hostile.json", "--format", name] for name in formats.FORMATS]


@pytest.mark.parametrize(
    "command",
    [
        *REPORTS,
        ["compare", "hostile.json", "again.json"],
        ["compare", "good.json", "hostile.json"],
        ["compare", "baseline.json", "baseline.json"],
        ["compare", "good.json", "baseline.json"],
        ["merge", "hostile.json", "broken.json"],
        ["report", "broken.json", "--format", "markdown"],
        ["compare", "broken.json", "good.json"],
        ["history", "add", "history.db", "broken.json"],
    ],
    ids=" ".join,
)
def test_no_command_shows_what_a_terminal_obeys(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(command)
    told = capsys.readouterr()
    assert "owned" in told.out + told.err or "llama-bench-md" in command, "it was shown, harmlessly"
    assert harmless(told.out + told.err)


def test_nor_does_a_history_that_somebody_else_wrote_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = address.parse("history.db", folder)
    database = Database(place)
    database.prepare()
    database.add(
        replace(
            GOOD,
            started=OBEYED,
            commit=OBEYED,
            cases=tuple(replace(one, case=replace(one.case, model=OBEYED)) for one in GOOD.cases),
        )
    )
    for command in (["list", "history.db"], ["trend", "history.db"], ["changes", "history.db"]):
        assert main(["history", *command]) == 0
        assert harmless(capsys.readouterr().out)


def test_markdown_takes_no_heading_from_a_run_s_time_or_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forged = replace(GOOD, started="now\n# heading\n<b>", id="x\n# heading\n<b>")
    (folder / "forged.json").write_text(records.dumps(forged), "utf-8")
    for name in ("markdown", "issue"):
        main(["report", "forged.json", "--format", name])
        text = capsys.readouterr().out
        assert "\n# heading" not in text
        assert "<b>" not in text.replace("\\<b", "")


def test_a_usage_error_of_pytest_s_quotes_a_file_harmlessly() -> None:
    error = pytest.raises(pytest.UsageError)
    with error as caught, collection.usage_errors(None):  # type: ignore[arg-type]
        raise BaselineError(f"case {OBEYED}\nsecond line")
    assert harmless(str(caught.value))
    assert "\nsecond line" in str(caught.value)


def test_a_number_that_the_database_cannot_hold_is_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "large.json").write_text(records.dumps(replace(GOOD, exit_status=10**30)), "utf-8")
    assert main(["history", "add", "history.db", "large.json"]) == 1
    assert "failed: Python int too large" in capsys.readouterr().err
