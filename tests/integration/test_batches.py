"""Batches of real engines, from the option to the record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.conftest import QUIET
from tests.integration.conftest import QUICK

if TYPE_CHECKING:
    from pathlib import Path


CASES = (("llama-cpp", "f16"), ("web-rwkv", "fp16"), ("rwkv7-hf", "fp32"))


@pytest.mark.parametrize(
    ("name", "quant"), [pytest.param(name, quant, marks=pytest.mark.engine(name)) for name, quant in CASES]
)
def test_a_batch_is_measured_after_every_sequence_was_checked(
    pytester: pytest.Pytester, engine_cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, quant: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(engine_cache))
    pytester.makeconftest(QUICK)
    case = (f"--rwkv-backend={name}", f"--rwkv-quant={quant}", "--rwkv-workload=tg4@b4", "--rwkv-budget=0.1")
    result = pytester.runpytest_subprocess(*QUIET, *case, "--rwkv-report=run.json", timeout=600)
    assert result.ret == 0
    (case_record,) = json.loads((pytester.path / "run.json").read_text(encoding="utf-8"))["cases"]
    (item,) = case_record["items"]
    assert (item["workload"], item["verdict"], item["rate"]["median"] > 0) == ("tg4@b4", "NO-BASELINE", True)
    for run in case_record["measured"]["runs"]:
        assert [batched["sequences"] for batched in run["batched"]] == [4]
        assert run["answers"]["tg4@b4"]["compared_with"] == "oracle"


@pytest.mark.engine("llama-cpp")
def test_a_batch_is_right_with_micro_batches_of_less_and_more_than_its_sequences(
    pytester: pytest.Pytester, engine_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(engine_cache))
    pytester.makeconftest(QUICK)
    case = ("--rwkv-backend=llama-cpp", "--rwkv-quant=f16", "--rwkv-workload=tg4@b4", "--rwkv-budget=0.1")
    swept = ("--rwkv-set=llama-cpp.ubatch=1,64", "--rwkv-chunk=64", "--rwkv-threads=1", "--rwkv-report=run.json")
    result = pytester.runpytest_subprocess(*QUIET, *case, *swept, timeout=600)
    assert result.ret == 0
    cases = json.loads((pytester.path / "run.json").read_text(encoding="utf-8"))["cases"]
    assert [each["case"]["settings"] for each in cases] == [[["ubatch", "1"]], [["ubatch", "64"]]]
    assert {item["verdict"] for each in cases for item in each["items"]} == {"NO-BASELINE"}
