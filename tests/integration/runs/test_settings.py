"""Engines' own settings from pytest's command line to the engine, its cases and the baseline."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.printed import verdict_rows

if TYPE_CHECKING:
    from tests.conftest import Runs

PACES = "--rwkv-set=scripted.pace=1,2"


def stored(runs: Runs) -> dict[str, Any]:
    (path,) = (runs.pytester.path / "baselines").glob("*-*.json")
    cases: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return cases


def ids(runs: Runs, *options: str) -> list[str]:
    return re.findall(r"\[(.*)\]", runs.measuring("--collect-only", "-q", *options).stdout.str())


def test_each_value_is_a_case_that_reaches_the_engine_and_has_its_own_baseline(runs: Runs) -> None:
    assert runs.measuring(PACES, "--rwkv-save-baseline").ret == 0
    settings = [key.rpartition(" | ")[2].split(" ", 1)[1] for key in sorted(stored(runs))]
    assert settings == ["chunk=64 pace=1", "chunk=64 pace=2"]
    for pace, case in enumerate((stored(runs)[key] for key in sorted(stored(runs))), start=1):
        times = [time for row in case["sessions"][0]["workloads"]["pp16"] for time in row]
        assert times == [pytest.approx(16 * 0.02e9 * pace)] * len(times)
    again = runs.measuring("--rwkv-set=scripted.pace=2")
    assert verdict_rows(again.outlines)[0].split()[-1] == "PASS"
    again.stdout.fnmatch_lines(["*fp16 (pace=2)*25.00*25.00*1.000*"])
    plain = runs.measuring("--rwkv-compare=stored")
    assert verdict_rows(plain.outlines)[0].split()[-1] == "NO-BASELINE"


def test_ids_name_settings_and_a_chunk_that_is_swept(runs: Runs) -> None:
    assert ids(runs, PACES) == ["scripted-fp16-cpu-pace1-pp16", "scripted-fp16-cpu-pace2-pp16"]
    assert ids(runs, "--rwkv-set=scripted.chunk=8,32", "--rwkv-set=scripted.pace=3") == [
        "scripted-fp16-cpu-chunk8-pace3-pp16",
        "scripted-fp16-cpu-chunk32-pace3-pp16",
    ]
    assert ids(runs, "--rwkv-set=scripted.chunk=8") == ["scripted-fp16-cpu-pp16"]


def test_a_failures_command_repeats_every_setting(runs: Runs) -> None:
    chosen = ("--rwkv-set=scripted.pace=2", "--rwkv-set=scripted.chunk=32")
    assert runs.measuring(*chosen, "--rwkv-save-baseline").ret == 0
    slower = runs.measuring(*chosen, factor="3")
    assert slower.ret == 1
    slower.stdout.fnmatch_lines(["*pytest *--rwkv-set=scripted.pace=2 --rwkv-set=scripted.chunk=32*"])


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("scripted.pase=2", "*scripted.pase is no setting of scripted (did you mean 'pace'?); it has chunk *pace *"),
        ("scripted.pace=0", "*scripted.pace='0' cannot be; allowed: a number from 1 to 9 *"),
        ("scripted.chunk=257", "*a number from 1 to 256*"),
        ("scirpted.pace=2", "*did not select (did you mean 'scripted'?)*"),
        ("pace=2", "*is not understood; write for example llama-cpp.ubatch=128,512*"),
    ],
)
def test_a_mistake_is_a_usage_error_before_anything_is_measured(runs: Runs, setting: str, told: str) -> None:
    result = runs.measuring(f"--rwkv-set={setting}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([told])
