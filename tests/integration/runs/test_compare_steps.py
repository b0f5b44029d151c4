"""What decides an item: the software, stored figures, or A/B against the rebuilt reference (`--rwkv-compare`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Runs

SAVE = "--rwkv-save-baseline"


@pytest.fixture(scope="module")
def first() -> dict[str, bytes]:
    """What the first `saved` has made, for the tests after it."""
    return {}


@pytest.fixture
def saved(runs: Runs, first: dict[str, bytes]) -> Path:
    """A folder of baselines with one session of fp16 pp16 at 50 tokens/s, and its recipe."""
    folder: Path = runs.pytester.path / "baselines"
    if not first:
        assert runs.measuring(SAVE).ret == 0
        first.update({path.name: path.read_bytes() for path in folder.iterdir()})
    folder.mkdir(exist_ok=True)
    for name, content in first.items():
        (folder / name).write_bytes(content)
    return folder


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def stored_twice_as_fast(folder: Path) -> None:
    """As if this machine had been twice as fast when the baseline was stored."""

    def halve(content: Any) -> None:  # noqa: ANN401 - JSON
        for case in content["cases"].values():
            for session in case["sessions"]:
                rows = session["workloads"]["pp16"]
                session["workloads"]["pp16"] = [[value // 2 for value in row] for row in rows]

    (machine,) = folder.glob("*-*.json")
    edit(machine, halve)


def judged(runs: Runs, *arguments: str, **script: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 - JSON; the script is text
    """A run, the only case of its record and that case's only item."""
    result = runs.measuring("--rwkv-report=run.json", *arguments, **script)
    record = json.loads((runs.pytester.path / "run.json").read_text(encoding="utf-8"))
    (case,) = record["cases"]
    (item,) = case["items"]
    return result, case, item


def test_the_same_software_passes_and_what_the_machine_did_is_said(runs: Runs, saved: Path) -> None:
    stored_twice_as_fast(saved)
    result, case, item = judged(runs)
    assert (result.ret, item["verdict"], item["step"], case["settled"]) == (0, "PASS", "identity", None)
    assert item["reason"].startswith("the same software as the baseline's, to the byte; this machine is 100.0% slower")


def test_the_stored_figures_decide_alone_where_that_is_asked_for(runs: Runs, saved: Path) -> None:
    stored_twice_as_fast(saved)
    result, case, item = judged(runs, "--rwkv-compare=stored")
    assert (result.ret, item["verdict"], item["step"], case["settled"]) == (1, "REGRESSION", "stored", None)


@pytest.mark.usefixtures("saved")
def test_changed_software_is_settled_by_ab_within_a_tolerance_that_stored_figures_cannot_tell(runs: Runs) -> None:
    result, case, item = judged(runs, "--rwkv-tolerance=5%", factor="1.02")
    assert (result.ret, item["verdict"], item["step"]) == (0, "PASS", "ab")
    assert item["comparison"]["ratio"] == pytest.approx(1 / 1.02, rel=1e-3)
    assert item["rate"]["median"] == pytest.approx(50 / 1.02, rel=1e-3)
    assert item["baseline"]["median"] == pytest.approx(50, rel=1e-3)
    assert "environment variable SCRIPTED_FACTOR= → 1.02; stored figures: INCONCLUSIVE at 0.980" in item["reason"]
    assert len(case["measured"]["runs"]) == 3
    assert len(case["settled"]["new"]["runs"]) == len(case["settled"]["old"]["runs"]) == 4
    announced = (
        r"rwkvperf: scripted differs from the baseline's \(environment variable SCRIPTED_FACTOR= → 1\.02\): .*20%"
    )
    result.stdout.re_match_lines_random([announced])


@pytest.mark.usefixtures("saved")
def test_a_regression_is_confirmed_by_ab(runs: Runs) -> None:
    result, _, item = judged(runs, factor="2")
    assert (result.ret, item["verdict"], item["step"]) == (1, "REGRESSION", "ab")
    assert "stored figures: REGRESSION at 0.500" in item["reason"]


def test_a_machine_that_got_slower_is_no_regression_of_the_software(runs: Runs, saved: Path) -> None:
    stored_twice_as_fast(saved)
    result, _, item = judged(runs, version="1.1")
    assert (result.ret, item["verdict"], item["step"]) == (0, "PASS", "ab")
    assert "stored figures: REGRESSION at 0.500" in item["reason"]


def test_a_machine_without_figures_is_compared_with_the_recipe(runs: Runs, saved: Path) -> None:
    (machine,) = saved.glob("*-*.json")
    machine.unlink()
    _, _, same = judged(runs)
    assert (same["verdict"], same["step"]) == ("PASS", "identity")
    result, _, item = judged(runs, factor="2")
    assert (result.ret, item["verdict"], item["step"]) == (1, "REGRESSION", "ab")
    assert "stored figures: NO-BASELINE" in item["reason"]


def test_without_a_recipe_stored_figures_decide(runs: Runs, saved: Path) -> None:
    (saved / "reference.json").unlink()
    result, case, item = judged(runs, factor="2")
    assert (result.ret, item["verdict"], item["step"], case["settled"]) == (1, "REGRESSION", "stored", None)


def test_a_reference_that_cannot_be_rebuilt_leaves_the_stored_verdict_and_says_why(runs: Runs, saved: Path) -> None:
    def built_here(content: Any) -> None:  # noqa: ANN401 - JSON
        gone = {"name": "scripted", "version": "1.0+mine", "digest": "0" * 64, "origin": ""}
        content["backends"]["scripted"]["distributions"] = [gone]

    edit(saved / "reference.json", built_here)
    result, case, item = judged(runs, factor="2")
    assert (result.ret, item["verdict"], item["step"], case["settled"]) == (1, "REGRESSION", "stored", None)
    assert "A/B could not be asked: the baseline's software cannot be rebuilt: scripted 1.0+mine" in item["reason"]


def test_a_reference_whose_answers_are_wrong_leaves_the_stored_verdict_and_says_why(runs: Runs, saved: Path) -> None:
    def wrong(content: Any) -> None:  # noqa: ANN401 - JSON
        content["backends"]["scripted"]["environment"]["SCRIPTED_FAULT"] = "wrong@logits"

    edit(saved / "reference.json", wrong)
    result, case, item = judged(runs, factor="2")
    assert (result.ret, item["verdict"], item["step"], case["failure"]) == (1, "REGRESSION", "stored", "")
    assert "A/B could not be asked: " in item["reason"]
    assert "gives a wrong answer" in item["reason"]


@pytest.mark.usefixtures("saved")
def test_ab_alone_needs_no_stored_figures(runs: Runs) -> None:
    result, case, item = judged(runs, "--rwkv-compare=ab", factor="2")
    assert (result.ret, item["verdict"], item["step"], case["settled"]) == (1, "REGRESSION", "ab", None)
    assert len(case["old"]["runs"]) == 4
    result.stdout.re_match_lines_random([r"rwkvperf: .* in alternation with the baseline's software"])
