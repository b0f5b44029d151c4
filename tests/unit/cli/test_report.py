"""`rwkvperf report` makes reports of stored records."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.cli.main import main
from pytest_rwkvperf.store import record as records
from tests.unit.building import make_record, make_run, recorded, report_record

if TYPE_CHECKING:
    from pathlib import Path

RECORD = report_record(recorded(make_record(make_run(pp16=[10**7] * 3), make_run(pp16=[11 * 10**6] * 3))))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.json"
    path.write_text(records.dumps(RECORD), encoding="utf-8")
    return path


def test_json_is_the_record_itself(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "run.json", "--format", "json"]) == 0
    assert capsys.readouterr().out == path.read_text(encoding="utf-8")


def test_the_format_of_an_output_is_its_suffix_or_the_option(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "run.json", "-o", "new/copy.json"]) == 0
    assert main(["report", "run.json", "--format", "json", "-o", "other"]) == 0
    assert capsys.readouterr().out.split() == ["new/copy.json", "other"]
    for copy in (path.parent / "new" / "copy.json", path.parent / "other"):
        assert copy.read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


def test_two_records_are_one_report(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = replace(RECORD, id="0" * 32, started="2026-01-01T00:00:00Z", commit="abcdef0123456789")
    (path.parent / "old.json").write_text(records.dumps(old), encoding="utf-8")
    assert main(["report", "run.json", "--against", "old.json", "--tolerance", "3%", "-o", "both.html"]) == 0
    text = (path.parent / "both.html").read_text(encoding="utf-8")
    assert "the run of 2026-01-01 00:00 UTC" in text
    assert "commit abcdef0123" in text
    assert "tolerance 3\u00a0%" in text
    assert "samples old" in text
    capsys.readouterr()
    assert main(["report", "run.json", "--against", "old.json", "--format", "markdown"]) == 0
    assert "compared with the run of 2026-01-01T00:00:00Z" in capsys.readouterr().out


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == records.json_schema()


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["run.json"], 2, "no format is given"),
        ([], 2, "no RECORD is given"),
        (["run.json", "--format", "json", "--tolerance", "3%"], 2, "--tolerance needs --against OLD"),
        (["run.json", "--format", "json", "--against", "gone.json"], 1, "record gone.json is not there"),
        (["run.json", "--format", "docx"], 2, "report format 'docx' is unknown; allowed: json"),
        (["run.json", "-o", "run.docx"], 2, "'run.docx': no such format"),
        (["run.json", "-o", "."], 2, "no such format"),
        (["run.json", "--format", "json", "-o", "taken"], 2, "is a folder"),
        (
            ["gone.json", "--format", "json"],
            1,
            "record gone.json is not there; give the file that --rwkv-report=FILE.json wrote",
        ),
        (["broken.json", "--format", "json"], 1, "record broken.json is not valid JSON"),
    ],
)
def test_invalid_arguments_are_refused(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, error: str
) -> None:
    (path.parent / "broken.json").write_text("{")
    (path.parent / "taken").mkdir()
    assert main(["report", *arguments]) == status
    assert error in capsys.readouterr().err
