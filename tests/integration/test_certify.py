"""The planted slowdown in whole runs: the gate finds it, and an invariant that an engine breaks names itself."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.certify import planted
from pytest_rwkvperf.certify.trials import trials
from pytest_rwkvperf.core import subprocesses
from tests.integration.conftest import QUICK

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Engines

DEEPER = '''
from pytest_rwkvperf.certify import planted

class Deeper(planted.PlantedEngine):
    """Decodes eight times as long after a hundred tokens, as an engine that reads its whole context would."""
    position = 0

    def clear(self):
        super().clear()
        self.position = 0

    def save_state(self):
        return super().save_state(), self.position

    def load_state(self, state):
        super().load_state(state[0])
        self.position = state[1]

    def prefill(self, tokens):
        self.factor = 1
        super().prefill(tokens)
        self.position += len(tokens)

    def decode(self, token):
        self.factor = 8 if self.position > 100 else 1
        super().decode(token)
        self.position += 1

class Backend(planted.Planted):
    def open(self, request):
        return Deeper(self._within().open(request), 1)

BACKEND = Backend()
'''
SHORT = """
from pytest_rwkvperf.core import invariants
from pytest_rwkvperf.core.invariants import Lengths

patch.setattr(invariants, "LENGTHS", (Lengths(256, 64, 8),))
"""
MODEL = ("--rwkv-model=synthetic:nano", "--rwkv-threads=1", "--rwkv-quant=f16")
# Beside other tests: what is asked is whether a large slowdown is found, not how small a one.
EASY = ("--rwkv-tolerance=60%", "--rwkv-false-alarms=50%", "--rwkv-budget=6")


@pytest.fixture
def quick(tmp_path: Path, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with a plugin for short warm-ups, which every run loads."""
    (tmp_path / "quick.py").write_text(QUICK + SHORT, encoding="utf-8")
    (tmp_path / "deeper.py").write_text(DEEPER, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p quick -p no:randomly")
    monkeypatch.setenv("XDG_CACHE_HOME", str(engines.cache))
    monkeypatch.setenv(planted.WITHIN, registry.BUILT_IN["llama-cpp"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.engine("llama-cpp")
def test_a_planted_slowdown_is_found_against_the_stored_engine(quick: Path) -> None:
    own = (*MODEL, *EASY, "--rwkv-workload=tg8")
    with trials(registry.BUILT_IN["llama-cpp"]) as running:
        stored = running.save_baseline(*own)
        assert [item.verdict for _, item in stored.items()] == ["NO-BASELINE"]
        slowed = running.take(4.0, *own)
    assert [item.verdict for item in slowed.items] == ["REGRESSION"]
    assert slowed.seconds > 0
    assert not list(quick.glob("baselines"))


@pytest.mark.engine("llama-cpp")
def test_an_engine_that_gets_slower_with_depth_breaks_the_invariant_of_that_name(quick: Path) -> None:
    planted.offer(quick, "deeper:BACKEND")
    (quick / "tests").mkdir()
    command = [sys.executable, "-m", "pytest", "--rootdir=tests", "tests", "-q", *MODEL, *EASY]
    own = (f"--rwkv-backend={planted.NAME}", "--rwkv-suite=invariants", "--rwkv-report=json:run.json")
    ended = subprocesses.run([*command, *own], capture=True)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "BROKEN: planted-f16-cpu generation-depth" in ended.stdout
    (case,) = json.loads((quick / "run.json").read_text(encoding="utf-8"))["cases"]
    verdicts = {each["name"]: each["verdict"] for each in case["invariants"]}
    assert verdicts.pop("generation-depth") == "BROKEN"
    assert "BROKEN" not in verdicts.values()
    assert verdicts["memory-depth"] == "HOLDS"


@pytest.mark.engine("llama-cpp")
def test_the_invariants_of_a_real_engine_are_not_broken(quick: Path) -> None:
    (quick / "tests").mkdir()
    command = [sys.executable, "-m", "pytest", "--rootdir=tests", "tests", "-q", *MODEL, *EASY]
    own = ("--rwkv-backend=llama-cpp", "--rwkv-suite=invariants", "--rwkv-report=json:run.json")
    ended = subprocesses.run([*command, *own], capture=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (case,) = json.loads((quick / "run.json").read_text(encoding="utf-8"))["cases"]
    assert {each["name"]: each["verdict"] for each in case["invariants"]}["memory-depth"] == "HOLDS"
