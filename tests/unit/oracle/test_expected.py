"""The oracle's logits are computed once per content, emulation and depth, and never half written."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.samples import CHECK_SEED, KNOWN_SEED
from pytest_rwkvperf.models.model import ModelFile
from pytest_rwkvperf.oracle import expected
from pytest_rwkvperf.oracle.agreement import BATCH_LENGTHS, DEPTH, PROMPT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_rwkvperf.models.synthetic import SyntheticModel


class Counting:
    """Writes as the logits how often it has been asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int, list[int]]] = []
        self.fails = False

    def solve(self, file: ModelFile, emulation: str, seed: int, targets: Mapping[int, Path]) -> None:
        self.asked.append((file.content_hash, emulation, seed, sorted(targets)))
        for target in targets.values():
            with target.open("wb") as opened:
                np.save(opened, np.full(3, len(self.asked), np.float32))
        if self.fails:
            raise RuntimeError("ended halfway")


@pytest.fixture
def file(tmp_path: Path, model: SyntheticModel, monkeypatch: pytest.MonkeyPatch) -> ModelFile:
    monkeypatch.setattr(folders, "cache", lambda: tmp_path / "cache")
    return ModelFile(tmp_path / "a.st", "st", "abc", model.shape, "f16")


def test_short_only_or_both(file: ModelFile) -> None:
    solver = Counting()
    assert len(expected.logits_files(file, "", deep=False, solver=solver)) == 1
    assert len(expected.logits_files(file, "", deep=True, solver=solver)) == 2
    assert solver.asked == [("abc", "", CHECK_SEED, [PROMPT]), ("abc", "", CHECK_SEED, [DEPTH])]


def test_known_answers_of_all_workloads_are_computed_in_one_pass_and_only_once(file: ModelFile) -> None:
    solver = Counting()
    workloads = [Workload("prefill", 512), Workload("generation", 12, 500), Workload("generation", 128)]
    answers = expected.known_answers(file, "", workloads, solver)
    assert answers == expected.known_answers(file, "", workloads[::-1], solver)
    assert [*answers] == ["pp512", "tg12@d500", "tg128"]
    assert answers["pp512"] == answers["tg12@d500"] != answers["tg128"]
    assert answers["tg128"] == expected.path_of("abc", "", KNOWN_SEED, 128)
    assert solver.asked == [("abc", "", KNOWN_SEED, [128, 512])]
    expected.known_answers(file, "", [*workloads, Workload("prefill", 64)], solver)
    assert solver.asked[1:] == [("abc", "", KNOWN_SEED, [64])]


def test_the_check_of_batches_has_its_logits_from_one_pass_over_the_fixed_prompt(file: ModelFile) -> None:
    solver = Counting()
    paths = expected.batch_files(file, "", solver)
    assert paths == expected.batch_files(file, "", solver)
    assert solver.asked == [("abc", "", CHECK_SEED, [*BATCH_LENGTHS])]
    assert paths == [expected.path_of("abc", "", CHECK_SEED, count) for count in BATCH_LENGTHS]


def test_a_batchs_known_answer_is_that_of_one_sequence(file: ModelFile) -> None:
    solver = Counting()
    answers = expected.known_answers(file, "", [Workload.parse(name) for name in ("tg9@d3", "tg9@d3@b4")], solver)
    assert answers["tg9@d3"] == answers["tg9@d3@b4"]
    assert solver.asked == [("abc", "", KNOWN_SEED, [12])]


def test_answers_that_the_oracle_would_take_too_long_for_are_left_out(
    file: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expected, "MOST_WORK", 512 * file.shape.parameters)
    solver = Counting()
    workloads = [Workload("prefill", 511), Workload("prefill", 512), Workload("generation", 12, 500)]
    assert [*expected.known_answers(file, "", workloads, solver)] == ["pp511"]
    assert [asked[-1] for asked in solver.asked] == [[511]]
    assert expected.known_answers(file, "", workloads[1:], solver) == {}
    assert len(solver.asked) == 1


def test_another_content_emulation_or_version_is_computed(file: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    solver = Counting()
    paths = expected.logits_files(file, "", deep=False, solver=solver)
    paths += expected.logits_files(file, "web-rwkv:int8", deep=False, solver=solver)
    paths += expected.logits_files(dataclasses.replace(file, content_hash="def"), "", deep=False, solver=solver)
    monkeypatch.setattr(expected, "VERSION", expected.VERSION + 1)
    paths += expected.logits_files(file, "", deep=False, solver=solver)
    assert [float(np.load(path)[0]) for path in paths] == [1, 2, 3, 4]


def test_another_file_of_the_same_content_is_not_computed_again(file: ModelFile) -> None:
    solver = Counting()
    first = expected.logits_files(file, "", deep=False, solver=solver)
    other = dataclasses.replace(file, path=file.path.with_suffix(".pth"), format="pth")
    assert expected.logits_files(other, "", deep=False, solver=solver) == first
    assert len(solver.asked) == 1


def test_partial_result_of_a_failed_oracle_is_not_used(file: ModelFile) -> None:
    solver = Counting()
    solver.fails = True
    with pytest.raises(RuntimeError, match="halfway"):
        expected.logits_files(file, "", deep=False, solver=solver)
    solver.fails = False
    (path,) = expected.logits_files(file, "", deep=False, solver=solver)
    assert np.load(path)[0] == 2
    assert [*path.parent.glob("*.npy*")] == [path]


def test_logits_of_another_user_are_computed_again(file: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    solver = Counting()
    (path,) = expected.logits_files(file, "", deep=False, solver=solver)
    access = os.access
    monkeypatch.setattr(os, "access", lambda place, mode: place != path and access(place, mode))
    assert expected.logits_files(file, "", deep=False, solver=solver) == [path]
    assert len(solver.asked) == 2
