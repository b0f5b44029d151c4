"""Saving, comparing and refusing, from pytest's command line, with an engine whose speed is known exactly."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

from tests.printed import verdict_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Runs

SAVE, REPLACE = "--rwkv-save-baseline", "--rwkv-save-baseline=replace"


@pytest.fixture(scope="module")
def first() -> dict[str, bytes]:
    """The first baseline that `saved` has made, for the tests after it."""
    return {}


@pytest.fixture
def saved(runs: Runs, first: dict[str, bytes]) -> Path:
    """This machine's baseline: one session of fp16 pp16 at 50 tokens/s.

    It stands alone, also for the test that it is made for: of a recipe beside it test_compare_steps.py has the tests.
    """
    if not first:
        assert runs.measuring(SAVE).ret == 0
        first[the_file(runs).name] = the_file(runs).read_bytes()
        shutil.rmtree(the_file(runs).parent)
    ((name, content),) = first.items()
    path = runs.pytester.path / "baselines" / name
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def the_file(runs: Runs) -> Path:
    (path,) = (runs.pytester.path / "baselines").glob("*-*.json")
    return path


def sessions(path: Path, quant: str = "fp16") -> list[Any]:
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    found: list[Any] = next(stored["sessions"] for stored in cases.values() if stored["case"]["quant"] == quant)
    return found


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def verdict(result: pytest.RunResult) -> str:
    """The last column of the table's only row."""
    (row,) = verdict_rows(result.outlines)
    return row.split()[-1]


def test_a_baseline_holds_raw_samples_and_the_machine(runs: Runs) -> None:
    result = runs.measuring(SAVE)
    path = the_file(runs)
    assert f"Saved 1 workload to {path}" in result.stdout.str()
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["fingerprint"]["system"].lower() in path.name
    (session,) = sessions(path)
    assert session["versions"] == {"scripted": "1.0"}
    assert len(session["workloads"]["pp16"]) == 3
    assert all(value == pytest.approx(16 * 0.02e9) for row in session["workloads"]["pp16"] for value in row)


def test_an_unchanged_engine_passes_and_writes_nothing(runs: Runs, saved: Path) -> None:
    before = saved.read_bytes()
    result = runs.measuring("--rwkv-strict")
    assert (result.ret, verdict(result)) == (0, "PASS")
    result.stdout.fnmatch_lines(["*50.00*50.00*1.000*PASS*", "Nothing got slower than the tolerance allows."])
    assert saved.read_bytes() == before


def test_a_regression_fails_its_test_with_the_ratio(runs: Runs, saved: Path) -> None:
    before = saved.read_bytes()
    result = runs.measuring(factor="2")
    result.assert_outcomes(failed=1)
    assert (result.ret, verdict(result)) == (1, "REGRESSION")
    result.stdout.re_match_lines(
        [
            r"-50 % \(50 → 25 t/s, limit 40 %\) scripted fp16 pp16",
            r"  REGRESSION: the ratio lies wholly below 0\.714",
            r"  with   scripted 1\.0, as the old figures",
            r"  since  stored 20\d\d-\d\d-\d\dT\S+ in .*\.json, in no commit",
            r"  new    25\.00 tokens/s, 95 % interval 24\.\d+ to 25\.\d+ \(3 processes, \d+ samples\)",
            r"  old    50\.00 tokens/s, 95 % interval 4\d\.\d+ to 5\d\.\d+ \(3 processes, \d+ samples\)",
            r"  ratio  0\.500 \(new / old, of the fast repetitions\), bounds 0\.4\d\d to 0\.[56]\d\d, wrong with .*",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert saved.read_bytes() == before


def test_a_failure_fits_into_a_narrow_summary_and_names_commit_and_command(runs: Runs, saved: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", str(saved)], ["commit", "-qm", "Store figures"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    runs.environment.setenv("COLUMNS", "80")
    runs.environment.setenv("SCRIPTED_FACTOR", "2")
    result = runs.measuring("--rwkv-report=run.json", "--junitxml=junit.xml")
    (short,) = [line for line in result.outlines if line.startswith("FAILED ")]
    assert len(short) <= 80
    assert short.startswith("FAILED rwkvperf::test_throughput[scripted-fp16-cpu-pp16] - Failed: -50 %")
    (since,) = [line for line in result.outlines if line.startswith("  since  ")]
    assert since.endswith(f"{saved}, commit {commit.strip()}")
    (repeat,) = [line for line in result.outlines if line.startswith("  repeat ")]
    program, *arguments = shlex.split(repeat.removeprefix("  repeat "))
    assert program == "pytest"
    assert not [each for each in arguments if "report" in each]
    (case,) = ET.parse(runs.pytester.path / "junit.xml").getroot().iter("testcase")  # noqa: S314 - pytest wrote it
    (failure,) = case.iter("failure")
    assert str(failure.get("message")).startswith("Failed: -50 % (50 → 25 t/s, limit 40 %) scripted fp16 pp16")
    assert max(len(str(one.get("value"))) for one in case.iter("property")) < 100, "a property is one figure"
    again = runs(*arguments)
    again.assert_outcomes(failed=1)


def test_a_markers_tolerance_overrides_the_option(runs: Runs, saved: Path) -> None:  # noqa: ARG001 - is there
    runs.pytester.makepyfile(
        "import pytest\n@pytest.mark.rwkv(tolerance='90%')\ndef test_mine(rwkv_perf): rwkv_perf.check()"
    )
    result = runs.measuring("--rwkv-tolerance=20%", factor="1.5")
    assert (result.ret, verdict(result)) == (0, "PASS")
    assert runs.measuring("--rwkv-tolerance=20%", "--rwkv-suite=yes", factor="1.5").ret == 1


def test_a_faster_engine_is_an_improvement(runs: Runs, saved: Path) -> None:  # noqa: ARG001 - is there
    result = runs.measuring(factor="0.5")
    assert (result.ret, verdict(result)) == (0, "IMPROVEMENT")


def test_noise_is_inconclusive_and_fails_only_if_strict(runs: Runs, saved: Path) -> None:  # noqa: ARG001
    result = runs.measuring("--rwkv-tolerance=2%", "--rwkv-compare=stored")
    assert (result.ret, verdict(result)) == (0, "INCONCLUSIVE")
    result.stdout.fnmatch_lines(["The budget ended cases whose own figures are less certain than the tolerance:*"])
    assert runs.measuring("--rwkv-tolerance=2%", "--rwkv-compare=stored", "--rwkv-strict=inconclusive").ret == 1


class TestSaving:
    """What goes into the file."""

    def test_a_second_session_is_stored_beside_the_first(self, runs: Runs, saved: Path) -> None:
        first = sessions(saved)
        assert runs.measuring(SAVE).ret == 0
        assert sessions(saved)[:1] == first
        assert len(sessions(saved)) == 2

    def test_sessions_with_dates_ahead_of_the_clock_do_not_push_the_new_one_out(self, runs: Runs, saved: Path) -> None:
        def change(content: Any) -> None:  # noqa: ANN401 - JSON
            (case,) = content["cases"].values()
            dates = [f"2131-01-{day:02}T00:00:00Z" for day in range(1, 11)]
            case["sessions"] = [{**case["sessions"][0], "recorded": date} for date in dates]

        edit(saved, change)
        old = sessions(saved)
        result = runs.measuring(SAVE, version="2.0", factor="1.1")
        assert result.ret == 0
        assert [session["versions"]["scripted"] for session in sessions(saved)] == ["1.0"] * (len(old) - 1) + ["2.0"]
        result.stdout.fnmatch_lines(["Stored sessions are dated up to 2131-01-10T00:00:00Z, later than *"])

    def test_saving_one_case_leaves_the_others(self, runs: Runs, saved: Path) -> None:
        first = sessions(saved)
        assert runs.measuring(SAVE, "--rwkv-quant=int8", "--rwkv-workload=tg4").ret == 0
        assert sessions(saved) == first
        assert list(sessions(saved, "int8")[0]["workloads"]) == ["tg4"]

    def test_a_regression_is_not_stored(self, runs: Runs, saved: Path) -> None:
        before = saved.read_bytes()
        result = runs.measuring(SAVE, factor="2")
        assert (result.ret, verdict(result)) == (1, "REGRESSION")
        assert saved.read_bytes() == before

    def test_a_passing_case_is_stored_beside_a_regression(self, runs: Runs, saved: Path) -> None:
        result = runs.measuring(SAVE, "--rwkv-quant=fp16,int8", factor="2")
        assert result.ret == 1
        result.stdout.fnmatch_lines(
            [
                "Saved 1 workload to *",
                "Regressions are not saved: scripted-fp16-cpu pp16; --rwkv-save-baseline=replace accepts them.",
            ]
        )
        assert (len(sessions(saved)), len(sessions(saved, "int8"))) == (1, 1)

    def test_replace_stores_a_regression(self, runs: Runs, saved: Path) -> None:
        result = runs.measuring(REPLACE, factor="2")
        assert (result.ret, verdict(result)) == (0, "REGRESSION")
        (session,) = sessions(saved)
        assert session["workloads"]["pp16"][0][0] == pytest.approx(2 * 16 * 0.02e9)
        assert verdict(runs.measuring(factor="2")) == "PASS"

    def test_replacing_one_workload_keeps_the_other(self, runs: Runs, saved: Path) -> None:
        runs.measuring(SAVE, "--rwkv-workload=pp16,tg4")
        runs.measuring(REPLACE, "--rwkv-workload=tg4", factor="2")
        times = [list(session["workloads"]) for session in sessions(saved)]
        assert times == [["pp16"], ["pp16"], ["tg4"]]

    def test_a_new_software_version_starts_its_own_sessions(self, runs: Runs, saved: Path) -> None:
        result = runs.measuring(SAVE, version="2.0", factor="1.1")
        assert (result.ret, verdict(result)) == (0, "PASS")
        assert [session["versions"]["scripted"] for session in sessions(saved)] == ["1.0", "2.0"]
        runs.measuring(version="3.0", factor="1.1").stdout.fnmatch_lines(["scripted *45.45*45.45*1.000*PASS*"])

    def test_an_invalid_figure_is_never_stored(self, runs: Runs) -> None:
        result = runs.measuring(SAVE, "--rwkv-quant=fp16,int8", fault="stopped-clock@open@int8")
        result.assert_outcomes(passed=1, failed=1)
        assert result.ret == 1
        assert {
            stored["case"]["quant"] for stored in json.loads(the_file(runs).read_text("utf-8"))["cases"].values()
        } == {"fp16"}

    def test_without_storable_figures_no_file_is_written(self, runs: Runs) -> None:
        result = runs.measuring(SAVE, fault="stopped-clock@open")
        assert result.ret == 1
        assert not (runs.pytester.path / "baselines").exists()

    def test_an_unwritable_folder_fails_the_run(self, runs: Runs) -> None:
        runs.pytester.makepyfile(
            "from pathlib import Path\n"
            "def test_mine(rwkv_perf): rwkv_perf.check(); Path('late').write_text('no folder', encoding='utf-8')"
        )
        result = runs.measuring(SAVE, "--rwkv-baseline-dir=late")
        result.assert_outcomes(passed=1)
        assert result.ret == 1
        result.stdout.fnmatch_lines(["not saved: baseline */late/*.json cannot be written: *"])

    def test_the_folder_may_be_elsewhere_with_an_unusual_name(self, runs: Runs, tmp_path: Path) -> None:
        folder = tmp_path / "Meß werte" / "ü"
        assert runs.measuring(SAVE, f"--rwkv-baseline-dir={folder}").ret == 0
        assert len([*folder.glob("*-*.json")]) == 1
        assert verdict(runs.measuring(f"--rwkv-baseline-dir={folder}")) == "PASS"


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda text: text[: len(text) // 2], "is not valid JSON"),
        (lambda text: text.replace('"schema": 3', '"schema": 99'), "has schema 99"),
    ],
    ids=["truncated", "newer"],
)
def test_an_unusable_file_is_a_usage_error_and_unchanged(
    runs: Runs, saved: Path, damage: Callable[[str], str], complaint: str
) -> None:
    """tests/unit/store has every other kind of damage."""
    text = saved.read_text(encoding="utf-8")
    damaged = damage(text)
    assert damaged != text
    saved.write_text(damaged, encoding="utf-8")
    for option in ((), (SAVE,), (REPLACE,)):
        result = runs.measuring(*option)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        message = " ".join(result.stderr.str().split())
        assert str(saved) in message
        assert complaint in message
        assert "Traceback" not in result.stderr.str()
        assert saved.read_text(encoding="utf-8") == damaged
    assert [path.name for path in saved.parent.glob("*-*.json")] == [saved.name]


def test_a_baseline_folder_that_is_a_file_is_a_usage_error(runs: Runs) -> None:
    (runs.pytester.path / "baselines").write_text("", encoding="utf-8")
    result = runs.measuring()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "baselines" in result.stderr.str()


class TestNoReference:
    """What is stored but cannot be compared with: NO-BASELINE that names the difference; only strict runs fail."""

    def check(self, runs: Runs, *reasons: str) -> None:
        result = runs.measuring("--rwkv-strict=skip,inconclusive")
        assert (result.ret, verdict(result)) == (0, "NO-BASELINE")
        failed = runs.measuring("--rwkv-strict=no-baseline")
        assert (failed.ret, verdict(failed)) == (1, "NO-BASELINE")
        for text in (result.stdout.str(), failed.stdout.str()):
            assert [reason for reason in reasons if reason not in text] == []

    def test_another_machines(self, runs: Runs, saved: Path) -> None:
        def change(content: Any) -> None:  # noqa: ANN401 - JSON
            content["fingerprint"].update(cpu="Z80", cores=1)

        edit(saved, change)
        saved.rename(saved.with_name("z80-1-cores-linux-00000000.json"))
        self.check(runs, "differ from this one in cpu ('Z80' stored, ", "cores (1 stored, ")

    def test_another_model(self, runs: Runs, saved: Path) -> None:
        edit(saved, lambda content: next(iter(content["cases"].values())).update(model_hash="0" * 64))
        self.check(runs, "differs in model content (000000000000 stored, ", "--rwkv-save-baseline=replace")

    def test_another_device_under_the_same_id(self, runs: Runs, saved: Path) -> None:
        edit(saved, lambda content: next(iter(content["cases"].values()))["device"].update(name="Other processor"))
        self.check(runs, "differs in device (Other processor stored, Scripted processor here)")

    def test_another_protocol(self, runs: Runs, saved: Path) -> None:
        edit(saved, lambda content: next(iter(content["cases"].values()))["sessions"][0].update(protocol=0))
        self.check(runs, "differs in protocol (0 stored, 1 here)")

    def test_another_case(self, runs: Runs, saved: Path) -> None:  # noqa: ARG002 - is there
        result = runs.measuring("--rwkv-quant=int8")
        assert verdict(result) == "NO-BASELINE"
        result.stdout.fnmatch_lines(["*lacks the case 'scripted | synthetic:nano | int8 | cpu | threads=*"])

    def test_another_workload(self, runs: Runs, saved: Path) -> None:  # noqa: ARG002 - is there
        result = runs.measuring("--rwkv-workload=tg4")
        assert verdict(result) == "NO-BASELINE"
        result.stdout.fnmatch_lines(["*the stored case has no tg4; --rwkv-save-baseline adds it*"])
