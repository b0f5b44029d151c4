"""Runs of `--rwkv-suite=invariants`: what holds for every RWKV-7 engine, judged without a baseline."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.core import invariants
from pytest_rwkvperf.core.invariants import Lengths

if TYPE_CHECKING:
    from tests.conftest import Runs

SUITE = "--rwkv-suite=invariants"
NAMES = ["generation-depth", "prefill-depth", "prefill-length", "memory-depth"]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths for which the oracle is quick."""
    monkeypatch.setattr(invariants, "LENGTHS", (Lengths(256, 16, 4),))


def found(runs: Runs) -> dict[str, dict[str, Any]]:
    (case,) = json.loads((runs.pytester.path / "run.json").read_text(encoding="utf-8"))["cases"]
    return {each["name"]: each for each in case["invariants"]}


def test_a_steady_engine_holds_all_without_a_baseline(runs: Runs) -> None:
    result = runs.measuring(SUITE, "--rwkv-report=run.json", "-v")
    assert result.ret == 0
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "rwkvperf: synthetic:nano, 1 case, 5 workloads, 4 invariants, the shipped suite (--rwkv-suite=invariants)",
            "rwkvperf: * against nothing stored",
            "rwkvperf::test_invariant[[]scripted-fp16-cpu-memory-depth] PASSED*",
            "backend *invariant *compares *ratio *bounds *verdict*",
            "scripted *generation-depth *tg4@d256 / tg4 *1.000 *HOLDS*",
            "Every invariant holds.",
        ]
    )
    assert not any("slower than the tolerance" in line for line in result.outlines)
    held = found(runs)
    assert [*held] == NAMES
    assert {each["verdict"] for each in held.values()} == {"HOLDS"}
    assert not (runs.pytester.path / "baselines").exists()


def test_an_engine_that_gets_slower_with_depth_is_named(runs: Runs) -> None:
    result = runs.measuring(SUITE, "--rwkv-report=run.json", fault="deep@open")
    assert result.ret == 1
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "BROKEN: scripted-fp16-cpu generation-depth: expected that a token after 256 tokens of context takes no*",
            "*tg4@d256 takes 2*% longer per token than tg4 in the same * processes: ratio 0.2*, bounds 0.2* to 0.*",
            "Broken: scripted-fp16-cpu generation-depth. RWKV's state has one size*",
        ]
    )
    held = found(runs)
    broken = held.pop("generation-depth")
    assert broken["verdict"] == "BROKEN"
    assert broken["fails"]
    assert broken["comparison"]["high"] < 1 / 1.4
    assert {each["verdict"] for each in held.values()} == {"HOLDS"}


def test_workloads_of_invariants_have_figures_and_no_verdict_of_their_own(runs: Runs) -> None:
    runs.measuring(SUITE, "--rwkv-report=run.json", "-k", "prefill-depth")
    (case,) = json.loads((runs.pytester.path / "run.json").read_text(encoding="utf-8"))["cases"]
    items = {item["workload"]: item for item in case["items"]}
    assert [*items] == ["pp16", "pp16@d256"]
    assert all(item["verdict"] is None and item["rate"] for item in items.values())
    assert "measured for the invariants" in items["pp16"]["reason"]


def test_a_test_of_ones_own_asks_with_its_tolerance(runs: Runs) -> None:
    runs.pytester.makepyfile(
        """
        import pytest

        @pytest.mark.rwkv(quant="fp16", tolerance="90%")
        def test_own(rwkv_invariant):
            if rwkv_invariant.question.invariant.name == "generation-depth":
                assert rwkv_invariant.check().comparison.tolerance == 0.9
        """
    )
    result = runs.measuring("--rwkv-suite=auto")
    assert result.ret == 0
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*your own tests (--rwkv-suite=auto)"])


def test_it_stands_beside_throughput_of_the_same_case(runs: Runs) -> None:
    runs.pytester.makepyfile("def test_own(rwkv_perf): assert rwkv_perf.check().verdict == 'NO-BASELINE'")
    result = runs.measuring(SUITE, "--rwkv-report=run.json")
    assert result.ret == 0
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["*1 case, 5 workloads, 4 invariants*"])
    assert [*found(runs)] == NAMES


def test_a_slower_device_is_asked_about_less_and_says_so(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "LENGTHS", (Lengths(10**6, 512, 64), Lengths(128, 8, 4)))
    result = runs.measuring(SUITE, "--co", "-q")
    assert result.ret == 0
    result = runs.measuring(SUITE, "-k", "generation-depth")
    result.stdout.fnmatch_lines(["rwkvperf: scripted-fp16-cpu: invariants after 128 tokens of context in place of *"])


@pytest.mark.parametrize(
    ("other", "said"), [("--rwkv-aa", "two builds"), ("--rwkv-save-baseline", "needs no baseline")]
)
def test_what_compares_builds_or_saves_is_refused(runs: Runs, other: str, said: str) -> None:
    result = runs.measuring(SUITE, other)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"*{said}*"])


def test_a_failing_engine_fails_every_test_of_its_case(runs: Runs) -> None:
    result = runs.measuring(SUITE, fault="abort@decode")
    assert result.ret == 1
    result.assert_outcomes(failed=4)


def test_without_a_backend_it_is_skipped(runs: Runs) -> None:
    runs.pytester.makepyfile("def test_it(rwkv_invariant): assert False")
    runs("-rs").assert_outcomes(skipped=1)
