"""Batches of real engines, from the option to the record."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.models import derive, synthetic
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


# In a process of its own, because it imports torch.
FILLING_UP = """
import sys
from pathlib import Path

import numpy as np

from pytest_rwkvperf.backends import hf_engine, rwkv7_hf
from pytest_rwkvperf.core.engine import OpenRequest

called = []
ordinary = hf_engine.HfBatch._call
hf_engine.HfBatch._call = lambda self, ids, cache: called.append(len(ids)) or ordinary(self, ids, cache)
engine = rwkv7_hf.BACKEND.open(OpenRequest(Path(sys.argv[1]), "fp32", "cpu", 1, 512))
parts = [(3, 4), (), (5, 6), (7, 8), (), (9,)], [(), (1,), (2,), (), (3,), (4,)], [(5,), (6,), (7,), (8,), (9,), (1,)]
found = []
for rwkv7_hf.Package.compiles_for_each_batch in (False, True):
    batch = engine.batch(6)
    for each in parts:
        batch.prefill(each)
        called.append("|")
    found.append(batch.logits().copy())
np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-5)
print(*called)
"""


@pytest.mark.engine("rwkv7-hf")
def test_calls_of_some_sequences_are_filled_up_where_their_number_costs_a_compilation(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    derive.write(synthetic.parse("synthetic:nano"), path, "pth", "nano", lambda _sentence, _fraction: None)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FILLING_UP, path],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "3 1 | 4 | 6 | 4 1 | 4 | 6 |\n"), done.stderr[-2000:]
