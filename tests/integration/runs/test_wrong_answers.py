"""Engines that are fast because they are wrong, each in its own way, get INVALID and no figure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.oracle import deep_checks
from pytest_rwkvperf.oracle.agreement import Agreement, Deep

if TYPE_CHECKING:
    from tests.conftest import Runs

REMEMBERED = Deep(Agreement(finite=True, relative_l2=0.0, kl=0.0, top_matches=True), 0.0)
WORKLOADS = "--rwkv-workload=pp48,tg8"


def refused(runs: Runs, fault: str, *options: str) -> str:
    """Run with a fault and save; nothing is stored, and the reason is what this gives."""
    result = runs.measuring(WORKLOADS, "--rwkv-save-baseline", "--rwkv-report=run.json", *options, fault=f"{fault}@")
    assert result.ret == 1
    items = json.loads((runs.pytester.path / "run.json").read_text(encoding="utf-8"))["cases"][0]["items"]
    assert [item["verdict"] for item in items] == ["INVALID", "INVALID"]
    assert [*(runs.pytester.path / "baselines").glob("*-*.json")] == []
    (reason,) = {item["reason"] for item in items}
    assert "gives a wrong answer, so its speed counts for nothing: " in reason
    return str(reason)


@pytest.mark.parametrize("fault", ["cut", "skip", "exactly"])
def test_a_long_prompt_of_new_tokens_shows_it_though_the_deep_check_is_remembered(
    fault: str, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deep_checks.DeepCheckCache, "load", lambda _cache: REMEMBERED)
    reason = refused(runs, fault)
    assert "a prompt of 48 new tokens in the case's chunks and in other pieces: the logits differ by " in reason


@pytest.mark.parametrize(
    ("fault", "workload"), [("reuse", "pp48"), ("fifth", "pp48"), ("warm", "pp48"), ("tired", "tg8")]
)
def test_an_engine_that_becomes_wrong_is_caught_by_what_a_timed_repetition_ended_with(
    fault: str, workload: str, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deep_checks.DeepCheckCache, "load", lambda _cache: REMEMBERED)
    assert f"{workload}, timed repetition 3 of a process: relative L2 " in refused(runs, fault)


def test_answers_beyond_the_oracles_work_are_compared_with_the_engines_own(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_rwkvperf.oracle.expected.MOST_WORK", 0.0)
    reason = refused(runs, "tired")
    assert "tg8, timed repetition 3 of a process: relative L2 " in reason
    assert "from the same tokens in other pieces" in reason


def test_a_right_engine_passes_and_its_record_has_the_answers(runs: Runs) -> None:
    assert runs.measuring("--rwkv-workload=pp48,tg8,pp40@d70", "--rwkv-report=run.json").ret == 0
    (case,) = json.loads((runs.pytester.path / "run.json").read_text(encoding="utf-8"))["cases"]
    first, *later = case["measured"]["runs"]
    assert (first["fresh"]["tokens"], first["fresh"]["changed"]) == (48, True)
    assert all(run["fresh"] is None for run in later)
    for run in (first, *later):
        answers = run["answers"]
        assert {name: answer["agreement"]["relative_l2"] for name, answer in answers.items()} == dict.fromkeys(
            ("pp48", "tg8", "pp40@d70"), 0.0
        )
        assert {answer["compared_with"] for answer in answers.values()} == {"oracle"}
        assert all(1 <= answers[name]["repetition"] <= len(run["samples"][name]) for name in answers)
    assert all(first["answers"][name]["repetition"] == len(first["samples"][name]) for name in first["answers"])


@pytest.mark.parametrize(("fault", "workload"), [("reuse", "pp48"), ("fifth", "pp48"), ("tired", "tg8")])
def test_the_sides_of_a_pair_are_checked_too(
    fault: str, workload: str, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deep_checks.DeepCheckCache, "load", lambda _cache: REMEMBERED)
    result = runs.measuring(WORKLOADS, "--rwkv-aa", fault=f"{fault}@")
    assert result.ret == 1
    text = " ".join(result.stdout.str().split())
    assert re.search(rf"{workload}, timed repetition \d of a process: relative L2 ", text)
