"""A run that measures nothing says why, and other tests are never left out in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Runs

NOTHING = "rwkvperf: nothing to measure: "


def why(result: pytest.RunResult) -> list[str]:
    """The reasons that the header gives."""
    return [line.removeprefix(NOTHING) for line in result.outlines if line.startswith(NOTHING)]


def test_engines_that_are_not_installed_are_named_with_what_installs_them(runs: Runs) -> None:
    result = runs("--rwkv-backend=all", fault="missing@versions")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert why(result) == ["none of the chosen engines can measure here"]
    for name, command in (("rwkv", "rwkv torch"), ("llama-cpp", "llama-cpp-python"), ("scripted", "scripted-native")):
        result.stdout.fnmatch_lines([f"rwkvperf: {name} is not installed for *-m pip install {command}*"])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["-k", "nothing"], "-k 'nothing'"),
        (["-m", "slow"], "-m 'slow'"),
        (["--deselect=rwkvperf::"], "--deselect=rwkvperf::"),
    ],
)
def test_options_that_deselect_everything_are_named(runs: Runs, options: list[str], named: str) -> None:
    result = runs.measuring(*options)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert why(result) == [f"every test that measures (1) was deselected ({named})"]


def test_a_missing_path_and_a_wrong_marker_say_so_alone(runs: Runs) -> None:
    runs.pytester.makepyfile("import pytest\n@pytest.mark.rwkv(wrong=1)\ndef test_mine(rwkv_perf): pass")
    for options, told in ((["nowhere.py"], "*file or directory not found: nowhere.py"), ([], "*no argument wrong*")):
        result = runs.measuring(*options)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([told])
        assert "nothing to measure" not in result.stdout.str()


def test_markers_that_the_options_leave_nothing_of_are_the_reason(runs: Runs) -> None:
    runs.pytester.makepyfile("import pytest\n@pytest.mark.rwkv(quant=['int8'])\ndef test_mine(rwkv_perf): pass")
    (reason,) = why(runs.measuring())
    assert reason.startswith("the options leave none of the quants, workloads and engines that the markers")


def test_the_ini_file_leaves_other_tests_in_and_the_command_line_counts_those_that_it_leaves_out(runs: Runs) -> None:
    runs.pytester.makeini("[pytest]\nrwkv_backend = scripted\nrwkv_quant = fp16\n")
    runs.pytester.makepyfile(
        test_unit="def test_a(): pass\ndef test_b(): pass", test_speed="def test_it(rwkv_perf): pass"
    )
    both = runs("--rwkv-workload=pp16")
    both.assert_outcomes(passed=3)
    both.stdout.fnmatch_lines(["rwkvperf: measuring is on by rwkv_backend in the ini file, so the other tests run*"])
    runs("--rwkv-workload=pp16", "test_unit.py").assert_outcomes(passed=2)
    only = runs("--rwkv-backend=scripted", "--rwkv-workload=pp16")
    only.assert_outcomes(passed=1, deselected=2)
    only.stdout.fnmatch_lines(["rwkvperf: deselected, since --rwkv-backend is given: tests that do not measure (2)"])


def test_more_threads_than_cores_are_warned_of(runs: Runs) -> None:
    result = runs.measuring("--rwkv-threads=1,4096", "--co")
    result.stdout.fnmatch_lines(["rwkvperf: --rwkv-threads=4096 is more than the * physical cores that this process *"])
    assert "is more than" not in runs.measuring("--rwkv-threads=1", "--co").stdout.str()


def test_a_case_whose_software_must_be_rebuilt_takes_that_time_too(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_rwkvperf.run.session import Session

    monkeypatch.setattr(Session, "builds", lambda _self: {"llama-cpp-python==0.3.35": 720.0})
    result = runs.measuring("--rwkv-budget=60", "--co")
    result.stdout.fnmatch_lines(
        ["rwkvperf: about 13 min (1 min a case; *; up to 12 min of it to build llama-cpp-python==0.3.35 for A/B), *"]
    )
