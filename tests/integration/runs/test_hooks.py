"""The plugin's own hooks, as other plugins and conftest files implement them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Runs

TESTS = """
    def test_it(rwkv_perf):
        rwkv_perf.check()
"""
FAILING = """
    def pytest_rwkvperf_{hook}({argument}):
        raise RuntimeError("no network")
"""


def example() -> str:
    """The conftest file of docs/extending.md."""
    text = (Path(__file__).parents[3] / "docs" / "extending.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?pytest_rwkvperf_verdict.*?)```", text, re.DOTALL)
    return str(code)


@pytest.mark.parametrize("spread", [(), ("-p", "xdist", "-n2")], ids=["alone", "xdist"])
def test_the_documented_example_is_told_of_verdicts_and_record(runs: Runs, spread: tuple[str, ...]) -> None:
    runs.pytester.makepyfile(TESTS)
    runs.pytester.makeconftest(example())
    result = runs.measuring("--rwkv-workload=pp16,tg4", *spread, apart=bool(spread))
    assert result.ret == 0
    told = (runs.pytester.path / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
    verdicts = [json.loads(line) for line in told]
    assert sorted((each["workload"], each["verdict"]) for each in verdicts) == [
        ("pp16", "NO-BASELINE"),
        ("tg4", "NO-BASELINE"),
    ], "once for each item, and under xdist in the controller alone"
    assert {each["backend"] for each in verdicts} == {"scripted"}
    assert all(each["test"].endswith(f"[scripted-fp16-cpu-{each['workload']}]") for each in verdicts)
    assert (runs.pytester.path / "runs.txt").read_text(encoding="utf-8").split()[1:] == ["2", "speeds"]


@pytest.mark.parametrize(("hook", "argument"), [("verdict", "item"), ("record", "record")])
def test_a_fault_in_a_hook_costs_no_figures(runs: Runs, hook: str, argument: str) -> None:
    runs.pytester.makepyfile(TESTS)
    runs.pytester.makeconftest(FAILING.format(hook=hook, argument=argument))
    result = runs.measuring("--rwkv-report=run.json", "--rwkv-workload=pp16,tg4")
    result.assert_outcomes(passed=2)
    assert result.ret == 1
    told = f"a plugin's pytest_rwkvperf_{hook} failed: RuntimeError: no network; the figures are kept"
    assert result.stdout.str().count(told) == 1
    assert (runs.pytester.path / "run.json").exists()


def test_a_hook_may_end_the_run(runs: Runs) -> None:
    runs.pytester.makepyfile(TESTS)
    runs.pytester.makeconftest("""
        import pytest

        def pytest_rwkvperf_verdict(item):
            pytest.exit("enough", returncode=7)
    """)
    result = runs.measuring("--rwkv-report=run.json", "--rwkv-workload=pp16,tg4")
    assert result.ret == 7
    assert (runs.pytester.path / "run.json").exists()


def test_an_unknown_argument_is_refused(runs: Runs) -> None:
    runs.pytester.makeconftest("def pytest_rwkvperf_record(recording): pass")
    result = runs()
    assert result.ret != 0
    assert "recording" in result.stderr.str() + result.stdout.str()


def test_the_header_names_backends_model_and_baseline(runs: Runs) -> None:
    runs.pytester.makepyfile("def test_it(): pass")
    line = "rwkvperf: backends scripted; model synthetic:nano; baseline *baselines"
    runs.measuring("-v").stdout.fnmatch_lines([line])
    assert "rwkvperf: backends" not in runs("-v").stdout.str()
