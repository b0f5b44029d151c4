"""The main job with real engines: one command saves a baseline, the next one compares with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.models import derive
from pytest_rwkvperf.models.shapes import Shape
from pytest_rwkvperf.models.synthetic import SyntheticModel
from tests.integration.conftest import QUICK

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
# On a machine where tests run beside, an interval may be too wide to be shown as a figure.
ROW = re.compile(r"(rwkv|llama-cpp|web-rwkv) +(\w+) +[\w:]+ +(pp32|tg2) +[\d.]+ +(?:[\d.]+%|unusable).* ([A-Z-]+) *$")

# The process says at its end what it has loaded: the parent of the workers must never hold an engine.
LIST_MODULES = """
import json, sys
from pathlib import Path

def pytest_unconfigure():
    Path("modules.json").write_text(json.dumps(sorted(sys.modules)), encoding="utf-8")
"""


@pytest.fixture
def measure(tmp_path: Path, engine_cache: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run pytest as a user would, in a folder with a small model, since web-rwkv computes on llvmpipe here."""
    (tmp_path / "conftest.py").write_text(QUICK + LIST_MODULES, encoding="utf-8")
    model = SyntheticModel("small", Shape(layers=2, width=64, rank_w=32, rank_a=32, rank_v=32, rank_g=32))
    derive.write(model, tmp_path / "small.st", "st", "small", lambda _sentence, _fraction: None)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "--rwkv-workload=pp32,tg2"]
        command += ["--rwkv-model=small.st", "--rwkv-threads=1"]
        return subprocess.run(
            [*command, "--rwkv-budget=1", "--rwkv-tolerance=80%", *options],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "160", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(engine_cache)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def rows(text: str) -> dict[tuple[str, str, str], str]:
    """Verdicts by backend, quant and workload."""
    found = [ROW.match(line) for line in text.splitlines()]
    return {(match[1], match[2], match[3]): match[4] for match in found if match}


@pytest.mark.engine("rwkv", "llama-cpp", "web-rwkv")
def test_all_engines_save_a_baseline_and_are_compared_with_it(
    tmp_path: Path, measure: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    quants = "--rwkv-quant=rwkv=fp32,llama-cpp=f16+q8_0,web-rwkv=fp16"
    first = measure("--rwkv-backend=all", quants, "--rwkv-save-baseline=append,crowded", "--rwkv-strict=skip")
    assert first.returncode == 0, first.stdout + first.stderr
    verdicts = rows(first.stdout)
    cases = {case[:2] for case in verdicts}
    assert cases == {("rwkv", "fp32"), ("llama-cpp", "f16"), ("llama-cpp", "q8_0"), ("web-rwkv", "fp16")}
    assert len(verdicts) == 2 * len(cases)
    assert set(verdicts.values()) == {"NO-BASELINE"}

    (path,) = (tmp_path / "baselines").glob("*-*.json")
    stored = json.loads(path.read_text(encoding="utf-8"))["cases"].values()
    assert {(case["case"]["backend"], case["case"]["quant"]) for case in stored} == cases
    for case in stored:
        (session,) = case["sessions"]
        assert set(session["workloads"]) == {"pp32", "tg2"}
        assert all(len(runs) >= 3 and min(map(len, runs)) >= 3 for runs in session["workloads"].values())
    before = path.read_bytes()

    second = measure("--rwkv-backend=all", quants, "-k", "tg2 and not q8_0")
    compared = rows(second.stdout)
    assert {backend for backend, _, _ in compared} == {"rwkv", "llama-cpp", "web-rwkv"}, second.stdout
    # On a machine where tests run beside, a case may be slower by 80 %: any verdict is right, but there must be one.
    assert "NO-BASELINE" not in second.stdout
    assert second.returncode == int("REGRESSION" in second.stdout), second.stdout
    assert path.read_bytes() == before

    loaded = set(json.loads((tmp_path / "modules.json").read_text(encoding="utf-8")))
    assert "pytest_rwkvperf.run.session" in loaded
    assert not loaded & {"torch", "rwkv", "rwkv.model", "llama_cpp", "rwkvperf_web_rwkv"}
