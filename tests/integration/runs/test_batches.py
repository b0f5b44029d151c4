"""Workloads of several sequences: their figures, checks, baselines and verdicts, on the scripted engine."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.printed import verdict_rows

if TYPE_CHECKING:
    from tests.conftest import Runs

WORKLOADS = "--rwkv-workload=pp48,tg8"
STEP = 0.1 * 1.3
"""Seconds of the scripted engine's step of four sequences."""


def record(runs: Runs) -> dict[str, Any]:
    (case,) = json.loads((runs.pytester.path / "run.json").read_text(encoding="utf-8"))["cases"]
    return dict(case)


def test_the_figures_are_of_all_sequences_and_every_answer_was_checked(runs: Runs) -> None:
    result = runs.measuring("--rwkv-workload=pp48,tg8,tg8@d70", "--rwkv-batch=1,4", "--rwkv-report=run.json")
    assert result.ret == 0
    rates = {row.split()[3]: float(row.split()[4]) for row in verdict_rows(result.outlines)}
    assert rates == {
        "pp48": 50.0,
        "pp48@b4": 50.0,
        "tg8": 10.0,
        "tg8@b4": pytest.approx(4 / STEP, abs=0.01),
        "tg8@d70": 10.0,
        "tg8@d70@b4": pytest.approx(4 / STEP, abs=0.01),
    }
    for run in record(runs)["measured"]["runs"]:
        (batched,) = run["batched"]
        assert batched["sequences"] == 4
        found = [batched[name]["agreement"]["relative_l2"] for name in ("prefill", "generation")]
        assert [*found, batched["alone"][1], batched["neighbours"][1]] == [0.0] * 4
        for name, samples in run["samples"].items():
            assert {len(sample["token_nanoseconds"]) for sample in samples} == {8 if name[:2] == "tg" else 0}
        assert {answer["compared_with"] for answer in run["answers"].values()} == {"oracle"}
        assert 0 <= run["answers"]["tg8@b4"]["sequence"] < 4


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        # Both ways of feeding are wrong, and the farther one is told.
        ("swap", "(prefill|generation) of sequence "),
        ("share", "(prefill|generation) of sequence "),
        ("drop", "(prefill|generation) of sequence 4 of 4 at once: relative L2 "),
        ("clear-all", "sequence "),
        ("late-swap", "tg8@b4, timed repetition 3 of a process, sequence "),
    ],
)
def test_a_wrong_batch_gets_no_figure(fault: str, problem: str, runs: Runs) -> None:
    options = ("--rwkv-batch=4", "--rwkv-save-baseline", "--rwkv-report=run.json")
    assert runs.measuring(WORKLOADS, *options, fault=f"{fault}@").ret == 1
    items = record(runs)["items"]
    assert [item["verdict"] for item in items] == ["INVALID", "INVALID"]
    assert [*(runs.pytester.path / "baselines").glob("*-*.json")] == []
    (reason,) = {item["reason"] for item in items}
    assert re.search(f"gives a wrong answer, so its speed counts for nothing: {problem}", reason), reason


def test_answers_that_the_oracle_would_take_too_long_for_are_compared_with_sequences_alone(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_rwkvperf.oracle.expected.MOST_WORK", 0.0)
    assert runs.measuring(WORKLOADS, "--rwkv-batch=4", "--rwkv-report=run.json").ret == 0
    assert {
        answer["compared_with"] for run in record(runs)["measured"]["runs"] for answer in run["answers"].values()
    } == {"pieces"}
    assert runs.measuring(WORKLOADS, "--rwkv-batch=4", "--rwkv-report=run.json", fault="late-swap@").ret == 1
    (reason,) = {item["reason"] for item in record(runs)["items"]}
    assert re.search(r"tg8@b4, timed repetition 3 of a process, sequence \d: relative L2 .* in other pieces", reason)


def test_a_baseline_without_batches_compares_as_before_and_batches_get_figures_of_their_own(runs: Runs) -> None:
    assert runs.measuring(WORKLOADS, "--rwkv-save-baseline").ret == 0

    def verdicts(*options: str, factor: str = "1") -> dict[str, str]:
        stored = ("--rwkv-batch=1,4", "--rwkv-compare=stored")
        rows = verdict_rows(runs.measuring(WORKLOADS, *stored, *options, factor=factor).outlines)
        return {row.split()[3]: row.split()[-1] for row in rows}

    assert verdicts() == {"pp48": "PASS", "pp48@b4": "NO-BASELINE", "tg8": "PASS", "tg8@b4": "NO-BASELINE"}
    verdicts("--rwkv-save-baseline")
    assert set(verdicts().values()) == {"PASS"}
    assert set(verdicts(factor="2").values()) == {"REGRESSION"}


def test_ab_alternates_batches_too(runs: Runs) -> None:
    result = runs.measuring(WORKLOADS, "--rwkv-batch=1,4", "--rwkv-aa", "--rwkv-budget=60")
    assert result.ret == 0
    rows = {row.split()[3]: row.split()[-1] for row in verdict_rows(result.outlines)}
    assert rows == dict.fromkeys(("pp48", "pp48@b4", "tg8", "tg8@b4"), "PASS")


def third_party(runs: Runs, name: str, source: str) -> None:
    """Make a backend `name` of these lines, as an installed distribution would offer it."""
    runs.pytester.makepyfile(**{name: source})
    folder = runs.pytester.path / f"{name}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    offered = f"[pytest_rwkvperf.backends]\n{name} = {name}:BACKEND\n"
    (folder / "entry_points.txt").write_text(offered, encoding="utf-8")
    runs.environment.syspath_prepend(runs.pytester.path)
    runs.environment.setenv("PYTHONPATH", os.pathsep.join([str(runs.pytester.path), os.environ["PYTHONPATH"]]))


SINGLE = """
from dataclasses import replace
from scripted_backend import BACKEND

BACKEND = replace(BACKEND, name="single", max_batch=1)
"""


def test_an_engine_of_all_without_batches_is_measured_without_them_and_a_line_says_so(runs: Runs) -> None:
    third_party(runs, "single", SINGLE)
    named = runs.measuring("--rwkv-backend=single", "--rwkv-batch=1,4")
    assert named.ret == pytest.ExitCode.USAGE_ERROR
    assert "single computes one sequence at a time, so it cannot measure pp16@b4; leave" in named.stderr.str()
    result = runs.measuring("--rwkv-backend=all", "--rwkv-batch=1,4")
    result.stdout.fnmatch_lines(["rwkvperf: single computes one sequence at a time, so it cannot measure pp16@b4"])


FORGETFUL = """
from dataclasses import dataclass
from scripted_backend import CPU, Scripted, ScriptedEngine

class Engine(ScriptedEngine):
    batch = None

@dataclass(frozen=True, slots=True)
class Forgetful(Scripted):
    name: str = "forgetful"

    def open(self, request):
        return Engine(request, CPU)

BACKEND = Forgetful()
"""


def test_a_backend_that_declares_batches_which_its_engine_lacks_is_told_what_to_add(runs: Runs) -> None:
    third_party(runs, "forgetful", FORGETFUL)
    result = runs.measuring("--rwkv-backend=forgetful", "--rwkv-workload=tg8,tg8@b4", "--rwkv-report=run.json")
    assert result.ret == 1
    (reason,) = {item["reason"] for item in record(runs)["items"]}
    assert "forgetful declares max_batch above 1, but its engine has no method batch (Batching in " in reason
    assert reason.endswith("leave max_batch out of the backend; until then measure without @b4")


def test_batches_and_settings_multiply_and_each_setting_has_its_own_rows_and_baseline(runs: Runs) -> None:
    swept = ("--rwkv-set=scripted.pace=1,2", "--rwkv-batch=1,4")
    saved = runs.measuring(WORKLOADS, *swept, "--rwkv-save-baseline")
    scaling = [row.split() for row in saved.outlines[-20:] if re.search(r"pp48 +[14] ", row)]
    rows = [(row[2], row[5], float(row[6]), float(row[7])) for row in scaling]
    assert rows == [
        ("(pace=1)", "1", 50.0, 1.0),
        ("(pace=1)", "4", 50.0, 1.0),
        ("(pace=2)", "1", 25.0, 1.0),
        ("(pace=2)", "4", 25.0, 1.0),
    ]
    (path,) = (runs.pytester.path / "baselines").glob("*-*.json")
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    assert sorted(key.rpartition(" | ")[2].split(" ", 1)[1] for key in cases) == [
        "chunk=64 pace=1",
        "chunk=64 pace=2",
    ]
    for case in cases.values():
        assert sorted(case["sessions"][0]["workloads"]) == ["pp48", "pp48@b4", "tg8", "tg8@b4"]
    again = runs.measuring(WORKLOADS, "--rwkv-set=scripted.pace=2", "--rwkv-batch=4")
    assert [row.split()[4] + " " + row.split()[-1] for row in verdict_rows(again.outlines)] == [
        "pp48@b4 PASS",
        "tg8@b4 PASS",
    ]
