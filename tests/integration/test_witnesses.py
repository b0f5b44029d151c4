"""What the witnesses count of real engines: the same in every run, and a planted fault by its name."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.core.work import differences
from pytest_rwkvperf.measure import witnessing
from pytest_rwkvperf.measure.process import Target
from pytest_rwkvperf.measure.record import ModelFacts
from pytest_rwkvperf.verdict import work
from pytest_rwkvperf.witnesses import registry
from tests.conftest import QUIET
from tests.integration.conftest import QUICK, lacking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.core.work import Reading
    from tests.integration.conftest import Engines

WORKLOADS = (Workload("prefill", 48), Workload("generation", 4), Workload("generation", 4, depth=8))
RECORDED = Path(__file__).with_name("witness_counts.json")
"""What was counted on an AMD EPYC of two cores, with the releases that constraints.txt pins."""
CHUNK = 32
"""A prefill of more tokens is counted by its first chunk."""


def target(engines: Engines, name: str, quant: str) -> Target:
    found, file = engines.describe(name), engines.file(name, quant)
    case = Case(name, "synthetic:nano", quant, "cpu", 1, CHUNK)
    return Target(
        case=case,
        location=found.location,
        environment=dict(found.backend.environment("cpu")),
        python=sys.executable,
        model=ModelFacts("synthetic:nano", file.content_hash, 1, file.size_bytes),
        path=file.path,
        device=next(device for device in found.devices if device.id == "cpu"),
        expected=(),
        known_deep=None,
    )


def read(target: Target, name: str, workloads: Sequence[Workload] = WORKLOADS) -> Reading:
    return witnessing.read(target, workloads, registry.load(name), lambda _sentence: None)


WITNESSES = [
    pytest.param("operations", "rwkv", "fp32", "aten::mm", marks=pytest.mark.engine("rwkv")),
    pytest.param("graph", "llama-cpp", "q8_0", "RWKV_WKV7", marks=pytest.mark.engine("llama-cpp")),
]


@pytest.mark.parametrize(("name", "engine", "quant", "operator"), WITNESSES)
def test_two_runs_count_the_same(engines: Engines, name: str, engine: str, quant: str, operator: str) -> None:
    """Each operator by shape, and the bytes of its results; times are no part of it."""
    made = target(engines, engine, quant)
    first, second = read(made, name), read(made, name)
    assert second.like(first)
    for workload in map(str, WORKLOADS):
        one, other = first.workloads[workload], second.workloads[workload]
        assert differences(one, other) == [], workload
        assert one.peak_bytes == other.peak_bytes
        assert one.count > 100, one
        assert operator in one.by_name()
    assert first.workloads["pp48"].tokens == CHUNK
    check_recorded(name, first)
    # The state has one size: after a context a token is the same work. llama.cpp zeroes a cleared state in its graph.
    changed = {each.operator.split()[0] for each in differences(first.workloads["tg4"], first.workloads["tg4@d8"])}
    assert changed <= {"SCALE", "GET_ROWS", "CPY"}, changed


def check_recorded(name: str, reading: Reading) -> None:
    """Another machine of one instruction set has counted the same of the same releases."""
    found = {
        workload: {operator: list(amount[:2]) for operator, amount in sorted(count.operators.items())}
        for workload, count in reading.workloads.items()
    }
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))[name]
    assert found == recorded, f"after an upgrade of the engine, put this into {RECORDED.name}: {json.dumps(found)}"


def edited_rwkv(folder: Path, once: str, twice: str) -> Path:
    """A copy of the installed rwkv package in which one expression is computed twice."""
    spec = find_spec("rwkv")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    copy = shutil.copytree(spec.submodule_search_locations[0], folder / "rwkv")
    source = (copy / "model.py").read_text(encoding="utf-8")
    assert once in source
    (copy / "model.py").write_text(source.replace(once, twice), encoding="utf-8")
    return folder


@pytest.mark.engine("rwkv")
def test_an_operation_that_is_done_twice_is_found_and_named(engines: Engines, tmp_path: Path) -> None:
    """In an edited copy of the package: its operators, and as many more calls as there are layers and tokens.

    Not the very same expression: torch's script compiler computes that once.
    """
    made = target(engines, "rwkv", "fp32")
    folder = edited_rwkv(tmp_path, "r = xr @ R_\n", "r = (2 * xr) @ R_ - xr @ R_\n")
    slower = replace(made, environment={**made.environment, "PYTHONPATH": str(folder)})
    workload = Workload("generation", 4)
    old, new = (read(each, "operations", [workload]) for each in (made, slower))
    judged = work.judge([new], [old], workload)
    assert judged is not None
    assert judged.verdict == "MORE WORK"
    changed = differences(old.workloads["tg4"], new.workloads["tg4"])
    added = {each.operator.split()[0]: each.new.number - each.old.number for each in changed}
    layers, tokens = 4, 4
    assert added["aten::mm"] == added["aten::sub.Tensor"] == layers * tokens
    assert "aten::mm" in judged.sentences[0]


def test_instructions_of_two_runs_are_within_the_allowance(engines: Engines) -> None:
    """By callgrind, of the oracle: NumPy's libraries run as they are, without AVX-512."""
    witness = registry.load("instructions")
    if absence := witness.absence():
        lacking(absence)
    made = target(engines, "reference", "fp32")
    first, second = (read(made, "instructions", [Workload("generation", 1)]) for _ in range(2))
    assert second.like(first)
    one, other = first.workloads["tg1"], second.workloads["tg1"]
    assert abs(other.count / one.count - 1) <= witness.allowance
    assert differences(one, other, witness.allowance) == []
    assert any("openblas" in name for name in one.operators), sorted(one.operators)
    assert not any("libpython" in name for name in one.operators), sorted(one.operators)


@pytest.mark.prove
@pytest.mark.engine("rwkv")
def test_a_run_fails_by_more_work_whatever_the_times_say(
    pytester: pytest.Pytester, engine_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `--rwkv-strict=more-work`, against what a run stored; the operator is named beside the verdict."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(engine_cache))
    pytester.makeconftest(QUICK)
    case = ("--rwkv-backend=rwkv", "--rwkv-quant=fp32", "--rwkv-workload=tg4", "--rwkv-budget=0.1")
    gate = ("--rwkv-witness=operations", "--rwkv-compare=stored", "--rwkv-strict=more-work", "--rwkv-tolerance=90%")
    run = (*QUIET, *case, *gate)
    stored = pytester.runpytest_subprocess(*run, "--rwkv-save-baseline=append,crowded", timeout=600)
    assert stored.ret == 0
    once, twice = "@ O_, x, state, v_first\n", "@ O_, x, state.clone(), v_first\n"
    monkeypatch.setenv("PYTHONPATH", str(edited_rwkv(pytester.path / "edited", once, twice)), prepend=os.pathsep)
    changed = pytester.runpytest_subprocess(*run, timeout=600)
    assert changed.ret == 1
    changed.stdout.fnmatch_lines(["*MORE WORK: * operations for 4 tokens (+*%), *: aten::clone 4x64x64 0 → 16*"])
