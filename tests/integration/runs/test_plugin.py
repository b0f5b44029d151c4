"""The plugin as a user of pytest meets it: options, items, skips, deselection, fixtures, exit codes."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.run.options import OPTIONS
from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Runs

OWN_TEST = """
    import pytest

    @pytest.mark.rwkv(quant=["int8"], workload=["pp16", "tg4"], tolerance="30%")
    def test_mine(rwkv_perf):
        result = rwkv_perf.measure()
        assert result.tokens_per_second.median > 5
        verdict = rwkv_perf.check()
        assert verdict.tolerance == 0.3
        assert verdict.item.case.quant == "int8"

    def test_other():
        assert False
"""


def usage_error(result: pytest.RunResult) -> str:
    """The message of a usage error, which is all that is printed: no traceback, nothing collected."""
    assert result.ret == pytest.ExitCode.USAGE_ERROR, result.stdout.str()
    text = result.stderr.str()
    assert "Traceback" not in text + result.stdout.str()
    return " ".join(text.split())


def test_every_option_is_in_the_help(runs: Runs) -> None:
    shown = runs("--help").stdout.str()
    assert all(f"  {option.flag}" in shown for option in OPTIONS)
    assert all(f"  {option.ini} " in shown for option in OPTIONS)
    assert len(OPTIONS) >= 14


def test_without_a_backend_tests_are_skipped_with_advice(runs: Runs) -> None:
    runs.pytester.makepyfile("def test_perf(rwkv_perf): rwkv_perf.check()\ndef test_other(): pass")
    result = runs("-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*measuring is off; turn it on with --rwkv-backend=all*"])
    assert "rwkvperf:" not in result.stdout.str()


def test_ignored_options_are_reported_while_measuring_is_off(runs: Runs) -> None:
    runs.pytester.makepyfile("def test_other(): pass")
    result = runs("--rwkv-strict=skip", "--rwkv-aa=no", "--rwkv-save-baseline")
    result.assert_outcomes(passed=1)
    given = "--rwkv-strict, --rwkv-aa, --rwkv-save-baseline do nothing"
    result.stdout.fnmatch_lines([f"rwkvperf: {given}: measuring is off; turn it on with *"])
    runs("--rwkv-budget=3").stdout.fnmatch_lines(["rwkvperf: --rwkv-budget does nothing: measuring is off*"])
    runs.pytester.makeini("[pytest]\naddopts = --rwkv-budget=3")
    assert "rwkvperf:" not in runs().stdout.str(), "it stands there for the runs that measure"
    assert "rwkvperf:" not in runs("--rwkv-budget=3", "--rwkv-backend=").stdout.str()


@pytest.mark.parametrize("fixture", ["llama_cpp", "rwkv_pip", "web_rwkv", "pth_model", "gguf_model", "st_model"])
def test_without_a_backend_every_fixture_skips(runs: Runs, fixture: str) -> None:
    runs.pytester.makepyfile(f"def test_it({fixture}): assert False")
    runs("-rs").assert_outcomes(skipped=1)


def test_measuring_runs_the_shipped_suite_and_prints_the_table(runs: Runs) -> None:
    result = runs.measuring("--rwkv-workload=pp16,tg4")
    assert result.ret == 0
    result.assert_outcomes(passed=2)
    result.stdout.re_match_lines_random(
        [
            r"rwkvperf: synthetic:nano, 1 case, 2 workloads, the shipped suite \(--rwkv-suite=auto\)",
            r"rwkvperf: .*at least 3 processes x 3 samples each.*",
            r"backend +quant +device +workload +t/s +± 95 % +parity +verdict *",
            r"scripted +fp16 +cpu +pp16 +50\.00 +[12]\.\d% +0\.0e\+00 +NO-BASELINE",
            r"scripted +fp16 +cpu +tg4 +10\.00 +[12]\.\d% +0\.0e\+00 +NO-BASELINE",
            r"No baseline to compare with: .*--rwkv-save-baseline stores one\.",
        ]
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--rwkv-backend=vllm"], ["'vllm'", "all, rwkv, llama-cpp, web-rwkv, fla, rwkv7-hf, reference, scripted"]),
        (["--rwkv-quant=q9_9"], ["'q9_9'", "scripted: fp16, int8"]),
        (["--rwkv-quant=rwkv=fp32"], ["'rwkv'", "scripted"]),
        (["--rwkv-quant=scripted=fp8"], ["fp8", "fp16, int8"]),
        (["--rwkv-device=cuda:0"], ["'cuda:0'", "cpu, spare:0"]),
        (["--rwkv-tolerance=fast"], ["--rwkv-tolerance='fast'", "5%"]),
        (["--rwkv-tolerance=100%"], ["--rwkv-tolerance='100%'"]),
        (["--rwkv-precision=0"], ["--rwkv-precision='0'"]),
        (["--rwkv-budget=-1"], ["--rwkv-budget='-1'", "a number above 0"]),
        (["--rwkv-budget=nan"], ["--rwkv-budget='nan'"]),
        (["--rwkv-threads=two"], ["--rwkv-threads='two'"]),
        (["--rwkv-chunk=0"], ["--rwkv-chunk='0'"]),
        (["--rwkv-chunk=257"], ["257", "scripted", "at most 256"]),
        (["--rwkv-suite=maybe"], ["'maybe'", "auto, yes, no"]),
        (["--rwkv-save-baseline=sometimes"], ["'sometimes'", "append, replace"]),
        (["--rwkv-strict=everything"], ["'everything'", "skip, no-baseline, inconclusive"]),
        (["--rwkv-workload=pp0"], ["'pp0'", "pp512"]),
        (["--rwkv-batch=0"], ["--rwkv-batch='0'", "a number above 0"]),
        (["--rwkv-batch=1,65"], ["scripted computes at most 64 sequences at once", "pp16@b65"]),
        (["--rwkv-model=synthetic:tera"], ["'tera'", "nano"]),
        (["--rwkv-model=nowhere.st"], ["nowhere.st", "does not exist"]),
        (["--rwkv-model=nano"], ["'nano'", "synthetic:SHAPE"]),
    ],
)
def test_a_wrong_value_is_a_usage_error_with_the_allowed_ones(runs: Runs, options: list[str], named: list[str]) -> None:
    message = usage_error(runs.measuring(*options))
    assert [word for word in named if word not in message] == [], message


def test_a_missing_engine_is_skipped_under_all(runs: Runs) -> None:
    result = runs.measuring("--rwkv-backend=all", "-rs")
    result.assert_outcomes(passed=1, skipped=3)
    assert result.ret == 0
    for name, command in [
        ("rwkv", "-m pip install rwkv torch"),
        ("llama-cpp", "-m pip install llama-cpp-python "),
        ("web-rwkv", "-m pip install ./native/web-rwkv"),
    ]:
        result.stdout.fnmatch_lines([f"SKIPPED*{name} is not installed for *{command}*"])


def test_a_missing_engine_named_explicitly_is_a_usage_error(runs: Runs) -> None:
    message = usage_error(runs("--rwkv-backend=llama-cpp,scripted"))
    assert "--rwkv-backend=llama-cpp: llama-cpp is not installed for" in message
    assert f"{sys.executable} -m pip install llama-cpp-python" in message


def test_a_third_partys_missing_engine_has_its_install_command(runs: Runs) -> None:
    message = usage_error(runs.measuring(fault="missing@versions"))
    assert "No module named 'scripted_native'" in message
    assert "pip install scripted-native" in message


def test_an_engine_without_a_device_is_missing(runs: Runs) -> None:
    message = usage_error(runs.measuring(fault="no-device@versions"))
    assert "finds no device to run on; plug in a scripted device" in message


def test_a_quant_of_a_missing_engine_is_accepted(runs: Runs) -> None:
    result = runs.measuring("--rwkv-backend=all", "--rwkv-quant=q8_0", "-rs")
    result.assert_outcomes(skipped=3)
    result.stdout.fnmatch_lines(["SKIPPED*llama-cpp is not installed for*"])


def test_nothing_measured_is_exit_5(runs: Runs) -> None:
    result = runs.measuring("--rwkv-backend=all", fault="missing@versions")
    result.assert_outcomes(skipped=4)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_nothing_measured_with_a_report_is_exit_5(runs: Runs) -> None:
    result = runs.measuring("-k", "nothing", "--rwkv-report=issue.md")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["nothing was measured, *"])
    result.stdout.no_fnmatch_line("*Nothing got slower*")


def test_strict_skip_fails_skipped_tests(runs: Runs) -> None:
    result = runs.measuring("--rwkv-backend=all", "--rwkv-strict=skip")
    result.assert_outcomes(passed=1, errors=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*llama-cpp is not installed for*"])


@pytest.mark.parametrize("strict", ["--rwkv-strict=no-baseline", "--rwkv-strict"])
def test_strict_no_baseline_fails_uncompared_items(runs: Runs, strict: str) -> None:
    result = runs.measuring(strict)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*NO-BASELINE scripted fp16 pp16*"])


def test_strict_fails_only_the_listed_verdicts(runs: Runs) -> None:
    assert runs.measuring("--rwkv-strict=skip,inconclusive").ret == 0


class TestSuite:
    """Which tests run while measuring."""

    @pytest.mark.parametrize(
        ("choice", "passed", "said"),
        [
            ("auto", 2, "your own tests (--rwkv-suite=auto)"),
            ("yes", 3, "the shipped suite (--rwkv-suite=yes)"),
            ("no", 2, "your own tests (--rwkv-suite=no)"),
        ],
    )
    def test_suite_choice_beside_a_users_test(self, runs: Runs, choice: str, passed: int, said: str) -> None:
        runs.pytester.makepyfile(OWN_TEST)
        result = runs.measuring("--rwkv-quant=", "--rwkv-workload=pp16,tg4", f"--rwkv-suite={choice}", "-k", "not fp16")
        # The suite has int8 too: two more tests, of the same items.
        result.assert_outcomes(passed=passed + (choice == "yes"), deselected=1 + 2 * (choice == "yes"))
        assert result.ret == 0
        assert said in result.stdout.str()

    def test_suite_no_without_own_tests_measures_nothing(self, runs: Runs) -> None:
        runs.pytester.makepyfile("def test_other(): pass")
        result = runs.measuring("--rwkv-suite=no")
        assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
        result.stdout.fnmatch_lines(
            ["rwkvperf: nothing to measure: no test asks for rwkv_perf, *--rwkv-suite=yes adds them"]
        )

    def test_its_tests_lie_below_the_rootdir_and_their_ids_can_be_given_back(self, runs: Runs) -> None:
        runs.pytester.makeconftest(
            "def pytest_collection_modifyitems(config, items):\n"
            "    items.sort(key=lambda item: item.path.relative_to(config.rootpath))"
        )
        runs.pytester.makepyfile("def test_other(): assert False")
        listed = runs.measuring("--rwkv-workload=pp16,tg4", "--co", "-q").outlines
        ids = [line for line in listed if "::" in line]
        assert ids == [f"rwkvperf::test_throughput[scripted-fp16-cpu-{workload}]" for workload in ("pp16", "tg4")]
        for chosen in ([ids[1]], ["--import-mode=importlib", ids[1]], [f"--deselect={ids[0]}"], ["-k", "tg4"]):
            result = runs.measuring("--rwkv-workload=pp16,tg4", "-rp", *chosen)
            assert result.ret == 0
            assert [line for line in result.outlines if "PASSED" in line] == [f"PASSED {ids[1]}"]
        assert "rwkvperf::test_throughput[x] is no test of the" in usage_error(
            runs.measuring("rwkvperf::test_throughput[x]")
        )

    @pytest.mark.parametrize("place", ["below", "beside"])
    def test_its_ids_can_be_given_back_where_the_rootdir_is_not_the_current_folder(
        self, runs: Runs, tmp_path: Path, place: str
    ) -> None:
        options = ["--rwkv-workload=pp16,tg4", "-rp"]
        if place == "below":
            runs.pytester.makeini("[pytest]")
            runs.pytester.mkdir("sub")
            runs.environment.chdir(runs.pytester.path / "sub")
            root = ".."
        else:
            root = os.path.relpath(tmp_path, runs.pytester.path)
            options.append(f"--rootdir={root}")
        listed = [line for line in runs.measuring(*options).outlines if line.startswith("PASSED")]
        ids = [line.removeprefix("PASSED ") for line in listed]
        assert ids == [f"{root}/rwkvperf::test_throughput[scripted-fp16-cpu-{name}]" for name in ("pp16", "tg4")]
        result = runs.measuring(*options, ids[1])
        assert [line for line in result.outlines if line.startswith("PASSED")] == [listed[1]]

    def test_its_last_failures_run_again(self, runs: Runs) -> None:
        options = ("-p", "cacheprovider", "--rwkv-workload=pp16,tg4")
        other = "--deselect=rwkvperf::test_throughput[scripted-fp16-cpu-pp16]"
        assert runs.measuring(*options, "--rwkv-strict=no-baseline", other).ret == 1
        runs.measuring(*options, "--lf").assert_outcomes(passed=1, deselected=1)

    def test_suite_auto_adds_the_suite_without_rwkv_perf_tests(self, runs: Runs) -> None:
        runs.pytester.makepyfile("def test_other(): pass\ndef test_model(st_model): assert st_model.format == 'st'")
        result = runs.measuring()
        result.assert_outcomes(passed=2, deselected=1)
        assert "the shipped suite (--rwkv-suite=auto)" in result.stdout.str()


def test_own_tests_are_measured_with_the_rootdir_elsewhere_where_the_baseline_then_is(
    runs: Runs, tmp_path: Path
) -> None:
    runs.pytester.makepyfile(test_mine="def test_it(rwkv_perf): rwkv_perf.check()")
    rootdir = f"--rootdir={tmp_path}"
    assert runs.measuring(rootdir, "--rwkv-save-baseline").ret == 0
    assert [path.name for path in (tmp_path / "baselines").iterdir() if path.name != "reference.json"]
    result = runs.measuring(rootdir, "--rwkv-strict=no-baseline", "test_mine.py::test_it[scripted-fp16-cpu-pp16]")
    result.assert_outcomes(passed=1)


def test_a_marker_selects_what_its_test_measures(runs: Runs) -> None:
    runs.pytester.makepyfile(OWN_TEST)
    result = runs.measuring("--rwkv-quant=", "--rwkv-workload=", "-v")
    result.assert_outcomes(passed=2, deselected=1)
    result.stdout.fnmatch_lines(["*::test_mine[[]scripted-int8-cpu-pp16]*", "*::test_mine[[]scripted-int8-cpu-tg4]*"])


def test_options_narrow_a_markers_lists(runs: Runs) -> None:
    runs.pytester.makepyfile(OWN_TEST)
    result = runs.measuring("--rwkv-quant=int8,fp16", "--rwkv-workload=tg4,tg8", "-v")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["*::test_mine[[]scripted-int8-cpu-tg4]*"])


@pytest.mark.parametrize(
    ("marker", "named"),
    [
        ("quants=['int8']", ["no argument quants", "quant=, workload=, tolerance="]),
        ("'int8'", ["'int8'", "quant=, workload=, tolerance="]),
        ("quant=['q9']", ["'q9'", "scripted: fp16, int8"]),
        ("workload=['xx']", ["'xx'", "ppN"]),
        ("tolerance='much'", ["'much'"]),
        ("quant=[4]", ["[4]", "list of strings"]),
    ],
)
def test_a_wrong_marker_argument_is_a_usage_error_that_names_the_test(
    runs: Runs, marker: str, named: list[str]
) -> None:
    runs.pytester.makepyfile(
        f"import pytest\n@pytest.mark.rwkv({marker})\ndef test_mine(rwkv_perf): rwkv_perf.check()\n"
        "@pytest.mark.rwkv(wrong=1)\ndef test_second(rwkv_perf): rwkv_perf.check()\n"
    )
    message = usage_error(runs.measuring("--rwkv-workload=", "--rwkv-quant="))
    assert [word for word in (*named, "::test_mine", "::test_second") if word not in message] == [], message


ON_PARAMETERS = """
    import pytest

    @pytest.mark.parametrize("size", [
        pytest.param("short", marks=pytest.mark.rwkv(workload=["pp16"], quant=["fp16"], tolerance="30%")),
        pytest.param("long", marks=[pytest.mark.rwkv(workload=["tg4"]), pytest.mark.rwkv(quant=["int8"])]),
        "plain",
    ])
    def test_sizes(rwkv_perf, size):
        assert rwkv_perf.check().tolerance == (0.3 if size == "short" else 0.4)

    @pytest.mark.rwkv(workload=["pp16"], quant=["fp16"], tolerance="10%")
    class TestOfAClass:
        @pytest.mark.rwkv(tolerance="20%")
        def test_one(self, rwkv_perf):
            assert rwkv_perf.check().tolerance == 0.2
"""


FORBIDDING = """
    import socket, subprocess, time
    import pytest

    def refuse(*_, **__):
        raise AssertionError("a unit test may not do this")

    @pytest.fixture(autouse=True)
    def closed(monkeypatch):
        monkeypatch.setattr(time, "time", lambda: 0.0)
        monkeypatch.setattr(time, "monotonic", lambda: 0.0)
        monkeypatch.setattr(socket, "socket", refuse)
        monkeypatch.setattr(subprocess, "Popen", refuse)
"""


def test_fixtures_that_freeze_time_and_forbid_processes_do_not_reach_the_measurement(runs: Runs) -> None:
    runs.pytester.makeconftest(FORBIDDING)
    runs.pytester.makepyfile("def test_it(rwkv_perf): rwkv_perf.check()")
    result = runs.measuring("--rwkv-report=run.json")
    result.assert_outcomes(passed=1)
    record = records.read(runs.pytester.path / "run.json")
    assert record.cases[0].measured is not None
    assert record.cases[0].measured.seconds > 0


def test_markers_on_parameters_and_classes_are_heeded_argument_by_argument(runs: Runs) -> None:
    runs.pytester.makepyfile(ON_PARAMETERS)
    result = runs.measuring("--rwkv-quant=fp16,int8", "--rwkv-workload=pp16,tg4", "-rp")
    plain = [f"scripted-{quant}-cpu-{workload}-plain" for quant in ("fp16", "int8") for workload in ("pp16", "tg4")]
    given = ["scripted-fp16-cpu-pp16-short", "scripted-int8-cpu-tg4-long", *plain]
    measured = re.findall(r"PASSED .*test_sizes\[(\S+)\]", result.stdout.str())
    assert sorted(measured) == sorted(given)
    assert "TestOfAClass::test_one[scripted-fp16-cpu-pp16]" in result.stdout.str()
    result.assert_outcomes(passed=len(given) + 1)


ON_A_FIXTURE = """
@pytest.fixture(params=[pytest.param(1, marks=pytest.mark.rwkv(workload=["tg4"]))])
def size(request): return 1
def test_it(rwkv_perf, size): pass
"""
IN_A_TESTCASE = """
import unittest
class TestIt(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def perf(self, rwkv_perf): self.perf = rwkv_perf
    def test_it(self): self.perf.check()
"""
WITH_A_WRONG_ARGUMENT = """
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.rwkv(x=1))])
def test_it(rwkv_perf, size): pass
"""


@pytest.mark.parametrize(
    ("test", "named"),
    [
        (ON_A_FIXTURE, "marker on a fixture's parameter comes too late"),
        (IN_A_TESTCASE, "a unittest.TestCase cannot be parametrized"),
        (WITH_A_WRONG_ARGUMENT, "no argument x"),
    ],
)
def test_what_cannot_be_heeded_is_a_usage_error(runs: Runs, test: str, named: str) -> None:
    runs.pytester.makepyfile(f"import pytest\n{test}")
    message = usage_error(runs.measuring("--rwkv-workload="))
    assert "test_it" in message
    assert named in message


def test_two_backend_fixtures_in_one_test_are_a_usage_error(runs: Runs) -> None:
    runs.pytester.makepyfile("def test_both(llama_cpp, web_rwkv): pass")
    message = usage_error(runs.measuring())
    assert "::test_both" in message
    assert "llama-cpp and web-rwkv" in message


def test_a_backend_that_was_not_selected_deselects_its_tests(runs: Runs) -> None:
    runs.pytester.makepyfile(
        "import pytest\n"
        "def test_llama(llama_cpp): assert False\n"
        "@pytest.mark.rwkv(quant=['q8_0'])\ndef test_perf(llama_cpp, rwkv_perf): assert False"
    )
    result = runs.measuring("--rwkv-quant=", "--rwkv-suite=no")
    result.assert_outcomes(deselected=2)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_selected_backend_that_is_missing_skips_its_tests(runs: Runs) -> None:
    runs.pytester.makepyfile(
        "def test_llama(llama_cpp): assert False\ndef test_perf(web_rwkv, rwkv_perf): assert False"
    )
    result = runs.measuring("--rwkv-backend=all", "--rwkv-suite=no", "-rs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*llama-cpp is not installed*", "SKIPPED*web-rwkv is not installed*"])


def test_default_quants_and_devices_come_from_the_engine(runs: Runs) -> None:
    result = runs("--rwkv-backend=scripted", "--collect-only", "-q", "--rwkv-device=spare:0,cpu")
    ids = re.findall(r"\[(.*)\]", result.stdout.str())
    assert ids == [
        f"scripted-{case}-{workload}"
        for case in ("fp16-cpu", "int8-cpu", "fp16-spare:0")
        for workload in ("pp512", "tg128")
    ]


def test_thread_counts_are_in_the_ids(runs: Runs) -> None:
    result = runs("--rwkv-backend=scripted", "--collect-only", "-q", "--rwkv-threads=1,2", "--rwkv-workload=pp16")
    ids = re.findall(r"\[(.*)\]", result.stdout.str())
    assert ids == [f"scripted-{quant}-cpu-t{count}-pp16" for quant in ("fp16", "int8") for count in (1, 2)]


@pytest.mark.parametrize("options", [(), ("--rwkv-aa", "--rwkv-tolerance=10%")])
def test_thread_counts_are_in_the_progress_lines(runs: Runs, options: tuple[str, ...]) -> None:
    result = runs.measuring("--rwkv-threads=1,2", *options)
    lines = [line for line in result.stdout.lines if ", ended by " in line]
    assert [line.split(":")[0] for line in lines] == ["scripted-fp16-cpu-t1", "scripted-fp16-cpu-t2"]


def test_collect_only_measures_nothing(runs: Runs) -> None:
    trace = runs.pytester.path / "trace"
    result = runs.measuring("--collect-only", "-q", trace=str(trace))
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_throughput[[]scripted-fp16-cpu-pp16]"])
    assert not trace.exists()


def test_a_quant_may_be_given_for_one_backend(runs: Runs) -> None:
    runs("--rwkv-backend=scripted", "--rwkv-quant=scripted=int8+fp16", "--collect-only", "-q").stdout.re_match_lines(
        [r".*\[scripted-int8-cpu-pp512\]", r".*\[scripted-int8-cpu-tg128\]", r".*\[scripted-fp16-cpu-pp512\]"]
    )


def test_a_keyword_selects_what_is_measured(runs: Runs) -> None:
    trace = runs.pytester.path / "trace"
    result = runs.measuring(
        "--rwkv-quant=fp16,int8", "--rwkv-workload=pp16,tg4", "-k", "int8 and tg4", trace=str(trace)
    )
    result.assert_outcomes(passed=1, deselected=3)
    result.stdout.fnmatch_lines(["rwkvperf: synthetic:nano, 1 case, 1 workload,*"])
    assert {line.split()[1] for line in trace.read_text(encoding="utf-8").splitlines()} == {"int8"}


def test_a_case_is_measured_once_for_all_its_items(runs: Runs) -> None:
    trace = runs.pytester.path / "trace"
    runs.pytester.makepyfile(
        "def test_a(rwkv_perf): rwkv_perf.measure(); rwkv_perf.check()\ndef test_b(rwkv_perf): rwkv_perf.check()"
    )
    runs.measuring("--rwkv-workload=pp16,tg4", trace=str(trace)).assert_outcomes(passed=4)
    assert len(trace.read_text(encoding="utf-8").splitlines()) == 3


def test_quiet_prints_no_progress(runs: Runs) -> None:
    loud, quiet = (runs.measuring(*more).stdout.str() for more in ((), ("-q",)))
    progress = "scripted-fp16-cpu: pp16 50.0 t/s"
    assert progress in loud
    assert progress not in quiet
    assert "NO-BASELINE" in quiet


def test_ini_options_work_and_the_command_line_overrides_them(runs: Runs) -> None:
    runs.pytester.makeini(
        "[pytest]\nrwkv_backend = scripted\nrwkv_quant = int8\nrwkv_workload = pp16, tg4\nrwkv_budget = 0.01\n"
        "rwkv_tolerance = 40%\nrwkv_suite = yes\nrwkv_strict = no-baseline\nrwkv_baseline_dir = figures\n"
    )
    result = runs("--rwkv-workload=tg4", "--rwkv-save-baseline", "-v")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["FAILED*[[]scripted-int8-cpu-tg4]*"])
    assert len([*(runs.pytester.path / "figures").glob("*-*.json")]) == 1
    runs.pytester.makepyfile("def test_perf(rwkv_perf): rwkv_perf.check()")
    runs("--rwkv-backend=").assert_outcomes(skipped=1)


def test_the_measurement_has_samples_memory_and_latencies(runs: Runs) -> None:
    runs.pytester.makepyfile(
        """
        import pytest
        from pytest import approx

        @pytest.mark.rwkv(workload=["pp16"])
        def test_prefill(rwkv_perf):
            result = rwkv_perf.measure()
            assert result.tokens_per_second.median == approx(50)
            assert result.tokens_per_second.processes == len(result.samples) == 3
            assert all(3 <= len(row) <= 10 for row in result.samples)
            assert result.time_to_first_token_seconds == approx(0.32)
            assert result.inter_token_latency_seconds() is None
            assert result.load_seconds == approx(0.25, rel=0.01)
            assert 1 << 20 < result.memory.peak_rss_bytes < 1 << 32
            assert result.memory.file_bytes > 1 << 20
            assert 0 <= result.conditions.steal <= 1

        @pytest.mark.rwkv(workload=["tg4@d8"])
        def test_generation(rwkv_perf):
            result = rwkv_perf.measure()
            assert result.tokens_per_second.median == approx(10), "the context is outside the clock"
            assert result.inter_token_latency_seconds((50, 99)) == approx((0.1, 0.1))
            assert result.time_to_first_token_seconds is None
            assert all(len(sample.token_nanoseconds) == 4 for row in result.samples for sample in row)
        """
    )
    result = runs.measuring("--rwkv-workload=")
    result.assert_outcomes(passed=2)
    assert result.ret == 0


def test_the_real_clock_gives_the_engines_times(runs: Runs) -> None:
    runs.pytester.makepyfile(
        """
        def test_it(rwkv_perf):
            times = [sample.nanoseconds for row in rwkv_perf.measure().samples for sample in row]
            assert 16e6 <= min(times) < 32e6, "the least interrupted one"
        """
    )
    runs.measuring("--rwkv-workload=pp8", clock="real", factor="0.1").assert_outcomes(passed=1)


def test_more_processes_until_the_precision_is_reached(runs: Runs) -> None:
    trace = runs.pytester.path / "trace"
    result = runs.measuring("--rwkv-budget=100", trace=str(trace))
    result.stdout.fnmatch_lines(["*5 processes, ended by precision*"])
    assert len(trace.read_text(encoding="utf-8").splitlines()) == 5


@pytest.mark.parametrize("fixture", ["st_model", "pth_model", "gguf_model"])
def test_a_model_fixture_gives_the_file_in_its_format(runs: Runs, fixture: str) -> None:
    runs.pytester.makepyfile(
        f"""
        def test_it({fixture}):
            file = {fixture}
            assert file.format == "{fixture[:-6]}"
            assert file.path.suffix == ".{fixture[:-6]}"
            assert file.path.stat().st_size == file.size_bytes > 1 << 20
            assert (file.shape.layers, file.shape.width) == (4, 256)
            assert len(file.content_hash) == 64
        """
    )
    runs.measuring("--rwkv-suite=no").assert_outcomes(passed=1)


HANDLE = """
    import numpy as np
    import psutil
    import pytest
    from pytest_rwkvperf.core.errors import OptionError
    from pytest_rwkvperf.run.fixtures import SESSION, _backend

    @pytest.fixture
    def scripted(request):
        yield from _backend(request, "scripted")

    def test_engine(scripted, st_model):
        assert scripted.version == "1.0"
        assert [device.id for device in scripted.devices()] == ["cpu", "spare:0"]
        assert scripted.quants() == ("fp16", "int8")
        engine = scripted.open(st_model, "int8")
        engine.prefill([1, 2, 3])
        engine.decode(4)
        logits = engine.logits()
        assert logits.dtype == "float32" and logits.shape == (65536,) and logits.argmax() == 10
        engine.clear()
        engine.prefill(range(1, 101))
        assert engine.logits().argmax() == 5050, "chunks of 64 and 36"
        for wrong in ([], [65536], [-1]):
            with pytest.raises(OptionError):
                engine.prefill(wrong)
        with pytest.raises(OptionError, match="65536"):
            engine.decode(65536)
        other = scripted.open(st_model, "fp16", device="spare:0")
        other.decode(7)
        assert (other.logits().argmax(), engine.logits().argmax()) == (7, 5050)
        with pytest.raises(OptionError, match="fp16, int8"):
            scripted.open(st_model, "q8_0")
        engine.clear()
        engine.prefill(np.arange(1, 5))
        engine.decode(np.int64(6))
        assert engine.logits().argmax() == 16
        for wrong in ("x", 1.0, None, np.array([1, 2])):
            with pytest.raises(OptionError, match="is no token; tokens are integers, from 0 to the vocabulary's size"):
                engine.decode(wrong)
        with pytest.raises(OptionError, match="'x' is no token"):
            engine.prefill([1, "x"])
        with pytest.raises(OptionError, match="5 is no prompt; give a list of tokens, or one"):
            engine.prefill(5)
        assert engine.logits().argmax() == 16, "a mistake reached the engine"
        with pytest.raises(OptionError, match="st_model and gguf_model give, not .*Path.*; pass the fixture itself"):
            scripted.open(st_model.path, "fp16")
        with scripted.open(st_model, "fp16") as short:
            pid = short._worker.pid
            short.decode(7)
            assert short.logits().argmax() == 7 and psutil.pid_exists(pid)
        assert not psutil.pid_exists(pid), "the process outlives the block"
        with pytest.raises(OptionError, match="on an engine that was closed; open.. gives another"):
            short.logits()
        other.close()
        other.close()
        assert engine.logits().argmax() == 16, "another session was closed"
        with pytest.raises(OptionError, match="did you mean 'int8'"):
            scripted.open(st_model, "INT-8")
"""


def test_a_backend_handle_drives_the_engine_in_a_worker(runs: Runs) -> None:
    runs.pytester.makepyfile(HANDLE)
    runs.measuring("--rwkv-suite=no").assert_outcomes(passed=1)
