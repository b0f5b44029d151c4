"""pytest-benchmark is fed: its JSON holds the recorded samples, and its switches behave."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Runs

MEASURE_AND_COMPARE = """
    from pathlib import Path

    def test_it(rwkv_perf):
        taken = rwkv_perf.measure()
        rwkv_perf.check()
        times = [sample.nanoseconds / 1e9 for row in taken.samples for sample in row]
        Path(f"{rwkv_perf.item.workload}.txt").write_text(repr(times))
"""


def test_the_json_has_the_samples_in_order(runs: Runs) -> None:
    runs.pytester.makepyfile(MEASURE_AND_COMPARE)
    result = runs.measuring("--benchmark-json=out.json", "--rwkv-workload=pp16,tg4")
    assert result.ret == 0
    benchmarks = json.loads((runs.pytester.path / "out.json").read_text())["benchmarks"]
    assert [one["extra_info"]["workload"] for one in benchmarks] == ["pp16", "tg4"]
    for one in benchmarks:
        recorded = json.loads((runs.pytester.path / f"{one['extra_info']['workload']}.txt").read_text())
        assert one["stats"]["data"] == pytest.approx(recorded, abs=1e-9)
        assert one["stats"]["rounds"] == sum(one["extra_info"]["processes"]) == len(recorded) >= 9
    prefill = benchmarks[0]
    assert prefill["extra_info"]["tokens_per_second"]["median"] == pytest.approx(16 / prefill["stats"]["median"])
    assert prefill["extra_info"]["case"].startswith("scripted | synthetic:nano | fp16 | cpu")
    assert [one["params"] for one in benchmarks] == [
        {"rwkv_perf": f"scripted-fp16-cpu-{name}"} for name in ("pp16", "tg4")
    ]
    assert "UNSERIALIZABLE" not in (runs.pytester.path / "out.json").read_text()


@pytest.mark.parametrize("option", ["--benchmark-disable", "--benchmark-skip", "-pno:benchmark"])
def test_verdicts_do_not_depend_on_pytest_benchmark(runs: Runs, option: str) -> None:
    runs.pytester.makepyfile(MEASURE_AND_COMPARE)
    result = runs.measuring(option)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*NO-BASELINE*"])


def test_a_test_may_use_the_benchmark_fixture_itself(runs: Runs) -> None:
    runs.pytester.makepyfile("def test_it(rwkv_perf, benchmark): rwkv_perf.check(); benchmark(lambda: None)")
    runs.measuring("--benchmark-json=out.json").assert_outcomes(passed=1)
    (one,) = json.loads((runs.pytester.path / "out.json").read_text())["benchmarks"]
    assert one["params"] == {"rwkv_perf": "scripted-fp16-cpu-pp16"}


def test_verdicts_come_last_and_pytest_benchmarks_table_only_if_it_is_asked_for(runs: Runs) -> None:
    runs.pytester.makepyfile(MEASURE_AND_COMPARE)
    unasked = runs.measuring()
    assert "benchmark 'pp16'" not in unasked.stdout.str()
    for option in ("--benchmark-columns=min,median", "--benchmark-sort=min", "--benchmark-autosave"):
        text = runs.measuring(option).stdout.str()
        assert 0 < text.index("benchmark 'pp16': 1 tests") < text.index("RWKV-7 throughput"), option


@pytest.mark.parametrize("place", ["ini", "variable"])
def test_pytest_benchmark_is_asked_in_a_file_or_a_variable_too(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    runs.pytester.makepyfile(MEASURE_AND_COMPARE)
    if place == "ini":
        runs.pytester.makeini("[pytest]\naddopts = --benchmark-sort=mean")
    else:
        monkeypatch.setenv("PYTEST_ADDOPTS", "--benchmark-sort=mean")
    assert "benchmark 'pp16': 1 tests" in runs.measuring().stdout.str()


def test_benchmark_only_measures(runs: Runs) -> None:
    runs.pytester.makepyfile("def test_it(rwkv_perf): rwkv_perf.check()\ndef test_model(st_model): pass")
    result = runs.measuring("--benchmark-only")
    assert result.ret == 0
    result.assert_outcomes(passed=1, skipped=1)
    assert "benchmark 'pp16': 1 tests" in result.stdout.str()
