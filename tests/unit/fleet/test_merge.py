"""Records of many machines are joined: nothing twice, nothing lost, missing machines named, hostile text escaped."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from pytest_rwkvperf.cli.main import main
from pytest_rwkvperf.core import locks
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.fleet import fleet_report, merge
from pytest_rwkvperf.store import files
from pytest_rwkvperf.store import record as records
from tests.unit.building import make_record, make_run, recorded, report_record, throttled
from tests.unit.reports.test_html import Parsed

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pytest_rwkvperf.store.record import Record

DOCUMENTED = Path(__file__).parents[3] / "docs" / "fleets.md"

MEASURED = make_record(make_run(pp16=[10**7, 11 * 10**6]), make_run(pp16=[10**7]), make_run(pp16=[10**7]))
GOOD = report_record(recorded(MEASURED))


def of_machine(number: int, run: Record = GOOD) -> Record:
    """The same run on another machine."""
    return replace(run, id=f"{number:032x}", fingerprint=replace(run.fingerprint, cpu=f"Processor {number}"))


def with_item(run: Record, **fields: object) -> Record:
    (case,) = run.cases
    return replace(run, cases=(replace(case, items=tuple(replace(item, **fields) for item in case.items)),))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def artefacts(tmp_path: Path) -> Path:
    """A CI's artefacts: three machines in folders of their own, one of them twice."""
    folder = tmp_path / "Artefakte ü"
    for name, run in {"a": of_machine(1), "b": of_machine(2), "c": of_machine(3), "again": of_machine(1)}.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "record.json").write_text(records.dumps(run), "utf-8")
    return folder


def test_records_of_a_folder_are_joined_and_each_run_counts_once(artefacts: Path) -> None:
    merged = merge.read([artefacts, artefacts / "a" / "record.json"], expected=3)
    assert [run.fingerprint.cpu for run in merged.runs] == ["Processor 1", "Processor 2", "Processor 3"]
    assert merged.missing == ()
    assert not merged.fails


def test_damaged_record_is_named_and_others_count(artefacts: Path) -> None:
    (artefacts / "b" / "record.json").write_text("{", "utf-8")
    merged = merge.read([artefacts])
    assert len(merged.runs) == 2
    (lost,) = merged.missing
    assert str(artefacts / "b" / "record.json") in lost.reason
    assert merged.fails


def test_missing_machines_are_counted(artefacts: Path) -> None:
    merged = merge.read([artefacts], expected=5)
    assert [lost.name for lost in merged.missing] == ["2 of 5 machines"]
    assert merged.fails


def test_of_two_different_records_with_one_id_the_first_counts(artefacts: Path) -> None:
    other = replace(of_machine(1), exit_status=1)
    (artefacts / "again" / "record.json").write_text(records.dumps(other), "utf-8")
    merged = merge.read([artefacts / "a", artefacts / "again"])
    assert merged.runs == (of_machine(1),)
    (lost,) = merged.missing
    assert str(artefacts / "again" / "record.json") in lost.reason
    assert str(artefacts / "a" / "record.json") in lost.reason
    assert of_machine(1).id in lost.reason
    assert merged.fails


@pytest.mark.parametrize("count", ["-1", "0", "two"])
def test_invalid_number_of_machines_is_a_usage_error(
    artefacts: Path, count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["merge", str(artefacts), f"--expect={count}"])
    assert caught.value.code == 2
    assert "--expect" in capsys.readouterr().err


def test_no_record_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no record in"):
        merge.read([tmp_path])
    with pytest.raises(OptionError, match="does not exist"):
        merge.read([tmp_path / "nowhere"])


def test_failed_run_fails_the_fleet() -> None:
    bad = with_item(replace(of_machine(9), exit_status=1), verdict="REGRESSION", fails=True, reason="slower by far")
    merged = merge.join([of_machine(1), bad], [])
    assert merged.fails
    assert "slower by far" in fleet_report.as_markdown(merged)


def test_sound_figures_are_stored_once_per_machine(tmp_path: Path) -> None:
    invalid = with_item(of_machine(2), verdict="INVALID")
    slower = with_item(of_machine(3), verdict="REGRESSION")
    merged = merge.join([of_machine(1), invalid, slower], [])
    for _ in range(2):  # merging twice does no harm
        merge.save(merged, tmp_path, replacing=False)
    (path,) = tmp_path.glob("*.json")
    baseline = files.read(path)
    assert baseline is not None
    assert baseline.fingerprint == of_machine(1).fingerprint
    (stored,) = baseline.cases.values()
    assert len(stored.sessions) == 1
    assert stored.sessions[0].workloads == {"pp16": ((10**7, 11 * 10**6), (10**7,), (10**7,))}
    assert merge.save(
        merge.join([replace(of_machine(1), started="2020-01-01T00:00:00Z")], []), tmp_path, replacing=False
    )
    assert files.read(path) == baseline, "the run itself dates a session by its end"
    written, failed = merge.save(merged, tmp_path, replacing=True)
    assert len(written) == 1, "replacing accepts the regression"
    assert failed == []


def test_concurrent_merges_store_a_session_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second merge saves while the first waits for the lock."""
    merged, hold = merge.join([of_machine(1)], []), locks.hold

    def second(path: Path, timeout: float) -> AbstractContextManager[None]:
        monkeypatch.setattr(locks, "hold", hold)
        assert merge.save(merged, tmp_path, replacing=False)[0]
        return hold(path, timeout)

    monkeypatch.setattr(locks, "hold", second)
    assert merge.save(merged, tmp_path, replacing=False) == ([], [])
    assert len(sessions_in(tmp_path)) == 1


def sessions_in(folder: Path) -> list[tuple[str, list[str]]]:
    """Date and workloads of each session of the only case of the only machine."""
    (path,) = folder.glob("*.json")
    baseline = files.read(path)
    assert baseline is not None
    (stored,) = baseline.cases.values()
    return [(session.recorded, sorted(session.workloads)) for session in stored.sessions]


def dated(started: str, **workloads: list[int]) -> Record:
    """A run of three processes."""
    taken = make_record(*(make_run(**workloads) for _ in range(3)))  # type: ignore[arg-type]  # its own are positional
    return replace(of_machine(1, report_record(recorded(taken))), started=started, id=f"{int(started[:4]):032x}")


def test_removed_workload_is_stored_again_once(tmp_path: Path) -> None:
    old = dated("2001", pp16=[10**7], tg4=[10**6])
    merge.save(merge.join([old], []), tmp_path, replacing=False)
    merge.save(merge.join([dated("2002", tg4=[2 * 10**6])], []), tmp_path, replacing=True)
    assert sessions_in(tmp_path) == [("2001", ["pp16"]), ("2002", ["tg4"])]
    for _ in range(3):
        merge.save(merge.join([old], []), tmp_path, replacing=False)
    assert sessions_in(tmp_path) == [("2001", ["pp16"]), ("2001", ["tg4"]), ("2002", ["tg4"])]


def test_replacing_removes_the_other_sessions(tmp_path: Path) -> None:
    first, second = dated("2001", pp16=[10**7]), dated("2002", pp16=[2 * 10**7])
    merge.save(merge.join([first, second], []), tmp_path, replacing=False)
    for _ in range(2):
        merge.save(merge.join([second], []), tmp_path, replacing=True)
        assert sessions_in(tmp_path) == [("2002", ["pp16"])]


def test_a_record_that_ten_newer_ones_push_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    newer = [dated(f"20{year}", pp16=[10**7 + year]) for year in range(11, 21)]
    merge.save(merge.join(newer, []), Path("baselines"), replacing=False)
    Path("old.json").write_text(records.dumps(dated("2001", pp16=[10**7], tg4=[10**6])), "utf-8")
    for _ in range(2):
        assert main(["merge", "old.json", "--save-baseline"]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Not saved")]
        assert line.endswith(": llama-cpp-q8_0-cpu, pp16 of 2001: 10 sessions that are newer or calmer are stored."), (
            "the other workload has its first session"
        )
    assert main(["merge", "old.json", "--save-baseline=replace"]) == 0
    assert "Not saved" not in capsys.readouterr().out


def test_a_record_that_is_refused_is_not_said_to_be_pushed_out(tmp_path: Path) -> None:
    merge.save(merge.join([dated("2001", pp16=[10**7])], []), tmp_path, replacing=False)
    run = dated("2002", pp16=[2 * 10**7])
    (case,) = run.cases
    assert case.measured is not None
    other = replace(case.measured, model=replace(case.measured.model, content_hash="b" * 64))
    merged = merge.join([replace(run, cases=(replace(case, measured=other),))], [])
    _, (refused,) = merge.save(merged, tmp_path, replacing=False)
    assert "is stored for another model content" in refused.reason
    assert merge.pushed_out(merged, tmp_path, crowded=False) == []


def test_unusable_baseline_does_not_stop_other_machines(tmp_path: Path) -> None:
    broken = files.path_for(tmp_path, of_machine(1).fingerprint)
    broken.write_text("{", "utf-8")
    written, failed = merge.save(merge.join([of_machine(1), of_machine(2)], []), tmp_path, replacing=False)
    assert [path.name for path in written] == [files.path_for(tmp_path, of_machine(2).fingerprint).name]
    assert str(broken) in failed[0].reason
    assert broken.read_text("utf-8") == "{"


HOSTILE = "\x1b[2J=cmd|'/C calc'!A0<script>alert(1)</script>`x`\n# heading hf_" + "aBcD" * 8


def hostile() -> merge.Merged:
    """A record with hostile text in every field that may come from elsewhere."""
    (case,) = GOOD.cases
    assert case.measured is not None
    named = replace(case.case, model=HOSTILE, backend=f"={HOSTILE}", quant="@x", device="+y")
    bad = replace(case, case=named, measured=replace(case.measured, case=named))
    run = replace(GOOD, cases=(bad,), fingerprint=replace(GOOD.fingerprint, cpu=HOSTILE))
    return merge.join([with_item(run, fails=True, reason=HOSTILE)], [merge.Missing(HOSTILE, HOSTILE)])


def test_no_format_has_terminal_sequences_or_tokens() -> None:
    for make in (fleet_report.as_markdown, fleet_report.as_csv):
        text = make(hostile())
        assert "\x1b" not in text
        assert "aBcDaBcD" not in text


def test_markdown_escapes_tags_and_headings() -> None:
    text = fleet_report.as_markdown(hostile())
    assert "<script" not in text.replace("\\<script", "")
    assert "\n# heading" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1, "no text adds a cell"


def test_the_page_has_every_machine_and_no_markup_of_records() -> None:
    page = Parsed(text := fleet_report.as_html(hostile()))
    assert page.texts("h1") == ["Nothing got slower in 1 run; 1 missing"]
    assert "<script>alert" not in text
    assert "aBcDaBcD" not in text
    assert page.tables["Figures of every machine"][1:] == [[*row] for row in fleet_report.rows(hostile())]
    slow = with_item(GOOD, verdict="REGRESSION", fails=True, reason="slower by far")
    page = Parsed(fleet_report.as_html(merge.join([GOOD, replace(slow, id="1" * 32)], [])))
    assert page.texts("h1") == ["Slower, wrong or not measured in 1 of 2 runs"]
    assert "slower by far" in page.texts("details", "row")[0]


def test_no_csv_cell_is_a_formula() -> None:
    table = list(csv.reader(io.StringIO(fleet_report.as_csv(hostile()))))
    assert len(table) == 3
    assert not [cell for row in table for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_command_writes_every_format_and_fails_if_a_machine_is_missing(
    artefacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [f"-o{tmp_path / name}" for name in ("fleet.md", "fleet.csv", "fleet.json")]
    saved = tmp_path / "baselines"
    assert main(["merge", str(artefacts), "--expect=3", "--save-baseline", f"--baseline-dir={saved}", *outputs]) == 0
    assert len(list(saved.iterdir())) == 3
    assert len(json.loads((tmp_path / "fleet.json").read_text("utf-8"))["runs"]) == 3
    assert main(["merge", str(artefacts), "--expect=4"]) == 1
    assert "1 of 4 machines: no record of theirs was given" in capsys.readouterr().out
    assert main(["merge", str(artefacts), "-o", str(tmp_path / "fleet.pdf")]) == 2


def test_output_folder_is_made_and_an_impossible_one_refused(
    artefacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "new" / "sub" / "fleet.md"
    assert main(["merge", str(artefacts), "-o", str(made)]) == 0
    assert made.exists()
    taken = made / "fleet.md"
    capsys.readouterr()
    assert main(["merge", str(artefacts), "-o", str(taken)]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"rwkvperf: -o {taken} cannot be written: ")
    assert f"{str(made)!r}; name another file" in output.err
    assert not output.out


def test_documented_ci_matrix_joins_what_its_jobs_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCUMENTED.read_text("utf-8"), re.DOTALL)
    jobs = yaml.safe_load(text)["jobs"]
    runners = jobs["measure"]["strategy"]["matrix"]["runner"]
    uploaded = jobs["measure"]["steps"][-1]["with"]
    into = jobs["join"]["steps"][1]["with"]["path"]
    (line,) = (step["run"] for step in jobs["join"]["steps"] if "run" in step)
    command = shlex.split(line.partition("rwkvperf merge")[2])
    monkeypatch.chdir(tmp_path)
    names = [uploaded["name"].replace("${{ matrix.runner }}", runner) for runner in runners]
    given = [tmp_path / into / name / uploaded["path"] for name in names]
    for number, place in enumerate(given):
        place.parent.mkdir(parents=True)
        place.write_text(records.dumps(of_machine(number)), "utf-8")
    assert main(["merge", *command]) == 0
    assert {"fleet.md", "fleet.csv"} <= {path.name for path in tmp_path.iterdir()}
    assert f"{len(runners)} runs of {len(runners)} kinds of machine; 0 missing." in Path("fleet.md").read_text("utf-8")
    given[0].unlink()  # one machine's job was lost
    assert main(["merge", *command]) == 1
    assert "no record of theirs was given" in Path("fleet.md").read_text("utf-8")
    capsys.readouterr()


def test_case_timed_in_both_protocols_is_two() -> None:
    measured = make_record(make_run(pp16=[10**7, 11 * 10**6]))
    native = replace(measured, case=replace(measured.case, protocol="native"))
    merged = merge.Merged((report_record(recorded(measured), recorded(native)),), ())
    assert [row[3] for row in fleet_report.rows(merged)] == ["q8_0", "q8_0 (native)"]


@pytest.mark.parametrize("replacing", [False, True])
def test_voided_figures_are_not_stored(tmp_path: Path, *, replacing: bool) -> None:
    observed = with_item(of_machine(1), verdict="INCONCLUSIVE", voided="watched")
    assert merge.save(merge.join([observed], []), tmp_path / "baselines", replacing=replacing) == ([], [])


def test_figures_of_a_throttled_gpu_are_not_stored(tmp_path: Path) -> None:
    merged = merge.Merged((report_record(recorded(throttled(MEASURED))),), ())
    assert merge.save(merged, tmp_path / "baselines", replacing=False) == ([], [])


def test_a_crowded_machines_figures_are_stored_only_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crowded = replace(MEASURED, conditions=replace(MEASURED.conditions, foreign=0.45))
    (tmp_path / "run.json").write_text(records.dumps(report_record(recorded(crowded))), "utf-8")
    command = ["merge", str(tmp_path / "run.json"), f"--baseline-dir={tmp_path / 'baselines'}"]
    assert main([*command, "--save-baseline"]) == 0
    assert "llama-cpp-q8_0-cpu: other processes took 45% of the processor meanwhile" in capsys.readouterr().out
    assert not (tmp_path / "baselines").exists()
    assert main([*command, "--save-baseline=append,crowded"]) == 0
    assert "Not saved" not in capsys.readouterr().out
    assert len([*(tmp_path / "baselines").glob("*-*.json")]) == 1
    assert main([*command, "--save-baseline=sometimes"]) == 2
