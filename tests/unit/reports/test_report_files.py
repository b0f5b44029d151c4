"""Reports as files: written through links, refused if a link is dangling or a folder impossible."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_rwkvperf.cli.main import main
from pytest_rwkvperf.core.errors import OptionError, ReportError
from pytest_rwkvperf.reports import report_files
from pytest_rwkvperf.reports.formats import ReportRequest
from pytest_rwkvperf.store import record as records
from tests.unit.building import make_record, make_run, recorded, report_record

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights there")

RECORD = report_record(recorded(make_record(make_run(pp16=[10**7, 10**7]))))


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """A link at the report's path to an older report in another folder."""
    made = tmp_path / "here" / "run.json"
    for folder in (made.parent, tmp_path / "shared"):
        folder.mkdir()
    (tmp_path / "shared" / "last.json").write_text("old", "utf-8")
    made.symlink_to("../shared/last.json")
    return made


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_report_is_written_through_a_link(link: Path) -> None:
    request = ReportRequest("json", link)
    report_files.check([request])
    assert report_files.write(RECORD, request, "en") == [link]
    assert link.is_symlink()
    target = link.resolve()
    assert not target.is_symlink()
    assert target.read_text("utf-8") == records.dumps(RECORD)
    assert (names(link.parent), names(target.parent)) == (["run.json"], ["last.json"])


def test_dangling_link_is_refused_before_and_after_the_run(link: Path) -> None:
    request, target = ReportRequest("json", link), link.resolve()
    target.unlink()
    with pytest.raises(OptionError, match=r"run\.json' cannot be written: it is a link to .*last\.json, which is not"):
        report_files.check([request])
    with pytest.raises(ReportError, match=r"run\.json cannot be written: it is a link to .*last\.json, which is not"):
        report_files.write(RECORD, request, "en")
    assert link.is_symlink()
    assert not target.exists()


@pytest.mark.parametrize("below", ["run.json", "sub/run.json"])
def test_dangling_folder_link_is_refused_and_nothing_is_made(tmp_path: Path, below: str) -> None:
    (tmp_path / "reports").symlink_to("missing/deep")
    request = ReportRequest("json", tmp_path / "reports" / below)
    with pytest.raises(OptionError, match="cannot be written"):
        report_files.check([request])
    with pytest.raises(ReportError, match="cannot be written"):
        report_files.write(RECORD, request, "en")
    assert names(tmp_path) == ["reports"]


def test_link_and_its_target_are_one_file(link: Path) -> None:
    with pytest.raises(OptionError, match=r"two reports would be .*last\.json"):
        report_files.check([ReportRequest("json", link), ReportRequest("markdown", link.resolve())])


def test_fleet_report_is_written_through_a_link(link: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = link.with_name("record.json")
    record.write_text(records.dumps(RECORD), "utf-8")
    assert main(["merge", str(record), "-o", str(link)]) == 0
    assert link.is_symlink()
    assert '"runs"' in link.read_text("utf-8")
    assert capsys.readouterr().out == f"{link}\n"


def test_command_refuses_a_dangling_link_before_reading(link: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link.resolve().unlink()
    for command in (["merge", "nothing.json", "-o", str(link)], ["history", "trend", "nothing.db", "-o", str(link)]):
        assert main(command) == 2
        assert f"-o {link} cannot be written: it is a link to" in capsys.readouterr().err


def test_loop_of_links_is_refused(link: Path) -> None:
    loop = link.with_name("loop.json")
    loop.symlink_to(loop.name)
    with pytest.raises(OptionError, match=r"loop\.json' cannot be written"):
        report_files.check([ReportRequest("json", link), ReportRequest("markdown", loop)])


def test_check_makes_no_folder_and_writing_does(tmp_path: Path) -> None:
    request = ReportRequest("json", tmp_path / "new" / "sub" / "run.json")
    report_files.check([request])
    assert names(tmp_path) == []
    assert report_files.write(RECORD, request, "en") == [request.path]
    assert request.path.read_text("utf-8") == records.dumps(RECORD)


@pytest.mark.parametrize("place", ["file/run.json", "file/new/run.json", f"{'n' * 300}/new/run.json"])
def test_impossible_folder_is_refused_before_the_run(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match=r"run\.json' cannot be written: .*(Not a dir.*/file(/new)?'|too long)"):
        report_files.check([ReportRequest("json", tmp_path / place)])
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="there is no such name")
def test_report_to_stdout_keeps_its_place_in_a_redirected_log(tmp_path: Path) -> None:
    """With a shell's `> log`, /dev/stdout is a link to the log, which must not be replaced or overwritten."""
    code = (
        "import sys; from pathlib import Path; from pytest_rwkvperf.core.atomic import destination, write_atomically\n"
        "print('before'); write_atomically(destination(Path('/dev/stdout')), b'report\\n'); print('after')"
    )
    log = tmp_path / "log"
    with log.open("w") as stream:
        subprocess.run([sys.executable, "-c", code], stdout=stream, check=True)
    assert log.read_text("utf-8") == "before\nreport\nafter\n"
    report_files.check([ReportRequest("json", Path("/dev/stdout")), ReportRequest("markdown", Path("/dev/stdout"))])


def test_engine_name_does_not_change_the_folder(tmp_path: Path) -> None:
    measured = make_record(make_run(pp16=[10**7, 10**7]))
    cases = [recorded(replace(measured, case=replace(measured.case, backend=name))) for name in ("../../a", "b")]
    written = report_files.write(report_record(*cases), ReportRequest("issue", tmp_path / "of.md"), "en")
    assert [path.name for path in written] == ["of-..-..-a.md", "of-b.md"]
    assert sorted(names(tmp_path)) == ["of-..-..-a.md", "of-b.md"]
