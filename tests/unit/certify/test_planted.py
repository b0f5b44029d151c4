"""The planted slowdown: every forward call takes the factor longer, and nothing else changes."""

from __future__ import annotations

import time
from importlib.metadata import Distribution
from typing import TYPE_CHECKING, cast

import pytest

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.backends.llama_cpp import BACKEND as LLAMA_CPP
from pytest_rwkvperf.certify import planted
from pytest_rwkvperf.core.engine import Backend
from pytest_rwkvperf.core.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.core.engine import Engine


class Calls:
    """An engine whose calls sleep, and which notes them."""

    vocabulary = 7

    def __init__(self) -> None:
        self.made: list[str] = []

    def prefill(self, tokens: list[int]) -> None:
        self.made.append(f"prefill {len(tokens)}")
        time.sleep(0.02)

    def decode(self, token: int) -> None:
        self.made.append(f"decode {token}")

    def synchronise(self) -> None:
        time.sleep(0.01)

    def load_state(self, state: str) -> None:
        self.made.append(state)

    def batch(self, sequences: int) -> CallsOfBatch:
        return CallsOfBatch(sequences)


class CallsOfBatch(Calls):
    """As many sequences, cleared one by one."""

    def __init__(self, sequences: int) -> None:
        super().__init__()
        self.sequences = sequences

    def clear_sequence(self, sequence: int) -> None:
        self.made.append(f"clear {sequence}")


def test_a_call_takes_the_factor_longer_with_the_work_that_it_queued() -> None:
    calls = Calls()
    engine = planted.PlantedEngine(cast("Engine", calls), 3.0)
    started = time.perf_counter()
    engine.prefill([1, 2])
    assert time.perf_counter() - started >= 3 * 0.03
    engine.load_state("state")
    assert (calls.made, engine.vocabulary) == (["prefill 2", "state"], 7)


def test_a_batch_takes_the_factor_longer_too() -> None:
    batch = planted.PlantedEngine(cast("Engine", Calls()), 3.0).batch(4)
    started = time.perf_counter()
    batch.prefill([(1,), (2,)])
    assert time.perf_counter() - started >= 3 * 0.03
    batch.clear_sequence(1)
    assert batch.sequences == 4


def test_it_is_a_backend_with_every_part_of_the_one_that_is_slowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(planted.WITHIN, registry.BUILT_IN["llama-cpp"])
    monkeypatch.setenv(planted.SLOWDOWN, "1.5")
    backend = registry.load(planted.LOCATION)
    assert isinstance(backend, Backend)
    assert backend.name == "planted"
    parts = ("format", "quants", "standard_chunk", "max_chunk", "distributions", "tells_logits", "install")
    assert [getattr(backend, part) for part in parts] == [getattr(LLAMA_CPP, part) for part in parts]
    assert backend.file_quant("q8_0") == "q8_0"
    own = planted.worker_variables(registry.BUILT_IN["llama-cpp"], 1.5)
    assert backend.environment(None) == {**LLAMA_CPP.environment(None), **own}


def test_without_its_variables_it_says_which_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(planted.WITHIN, raising=False)
    with pytest.raises(OptionError, match=planted.WITHIN):
        registry.load(planted.LOCATION)


def test_what_is_offered_is_an_entry_point(tmp_path: Path) -> None:
    planted.offer(tmp_path)
    (found,) = Distribution.discover(path=[str(tmp_path)])
    (entry,) = found.entry_points
    assert (entry.group, entry.name, entry.value) == (registry.GROUP, "planted", planted.LOCATION)
    assert planted.variables(tmp_path, "a:B", 1.1)["PYTHONPATH"].split(":")[0] == str(tmp_path)
