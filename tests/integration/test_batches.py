"""A batch of a real engine, from the option to the record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.conftest import QUIET
from tests.integration.conftest import QUICK

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.engine("web-rwkv")
def test_web_rwkvs_batch_is_measured_after_every_sequence_was_checked(
    pytester: pytest.Pytester, engine_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(engine_cache))
    pytester.makeconftest(QUICK)
    case = ("--rwkv-backend=web-rwkv", "--rwkv-quant=fp16", "--rwkv-workload=tg4@b4", "--rwkv-budget=0.1")
    result = pytester.runpytest_subprocess(*QUIET, *case, "--rwkv-report=run.json", timeout=600)
    assert result.ret == 0
    (case_record,) = json.loads((pytester.path / "run.json").read_text(encoding="utf-8"))["cases"]
    (item,) = case_record["items"]
    assert (item["workload"], item["verdict"], item["rate"]["median"] > 0) == ("tg4@b4", "NO-BASELINE", True)
    for run in case_record["measured"]["runs"]:
        assert [batched["sequences"] for batched in run["batched"]] == [4]
        assert run["answers"]["tg4@b4"]["compared_with"] == "oracle"
