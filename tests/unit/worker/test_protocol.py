"""The protocol on a scripted engine that writes down every call, between the readings of the clock."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.core.cases import Workload, WorkloadKind
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.samples import Sample
from pytest_rwkvperf.worker import protocol
from pytest_rwkvperf.worker.protocol import Contexts, token_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pytest_rwkvperf.core.engine import Engine

Call = tuple[str, tuple[int, ...]]

VOCABULARY = 65_536
NANOSECONDS = {
    "save": 10**11, "load": 10**10, "clear": 10**9, "synchronise": 10**8,
    "prefill": 10**6, "decode": 10**4, "logits": 100, "clock": 1,
}  # fmt: skip
"""How long each call takes on the scripted clock; no two sums are alike."""


class Scripted:
    """Does nothing, takes its time, and remembers."""

    def __init__(self, vocabulary: int = VOCABULARY) -> None:
        self.calls: list[Call] = []
        self.vocabulary = vocabulary
        self.device = Device("cpu", "CPU", "cpu")
        self._now = 0
        self._fed: tuple[int, ...] = ()
        """The tokens that its state stands for."""

    @property
    def fed(self) -> tuple[int, ...]:
        return self._fed

    def _take(self, name: str, *tokens: int) -> None:
        self.calls.append((name, tokens))
        self._now += NANOSECONDS[name] * max(1, len(tokens))

    def clear(self) -> None:
        self._take("clear")
        self._fed = ()

    def save_state(self) -> tuple[int, ...]:
        self._take("save")
        return self._fed

    def load_state(self, state: tuple[int, ...]) -> None:
        self._take("load")
        self._fed = state

    def prefill(self, tokens: Sequence[int]) -> None:
        self._take("prefill", *tokens)
        self._fed += tuple(tokens)

    def decode(self, token: int) -> None:
        self._take("decode", token)
        self._fed += (token,)

    def synchronise(self) -> None:
        self._take("synchronise")

    def logits(self) -> npt.NDArray[np.float32]:
        self._take("logits")
        return np.zeros(self.vocabulary, np.float32)

    def read_clock(self) -> int:
        self._take("clock")
        return self._now


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """Its clock is the protocol's."""
    made = Scripted()
    clock = SimpleNamespace(time=lambda: 1234.5, perf_counter_ns=made.read_clock)
    monkeypatch.setattr(protocol, "time", clock)
    return made


def names(calls: Sequence[Call]) -> list[str]:
    return [name for name, _ in calls]


def fed(calls: Sequence[Call]) -> tuple[int, ...]:
    return tuple(token for _, tokens in calls for token in tokens)


# Order


def test_a_prefill_is_timed_from_an_idle_engine_to_its_last_logits(engine: Scripted) -> None:
    sample = protocol.run(engine, Workload("prefill", 5), chunk=2, contexts=Contexts())
    ids = token_ids(5, VOCABULARY)
    assert engine.calls == [
        ("clear", ()),
        ("synchronise", ()),
        ("clock", ()),
        ("prefill", ids[:2]),
        ("prefill", ids[2:4]),
        ("prefill", ids[4:]),
        ("logits", ()),
        ("clock", ()),
    ]
    assert sample == Sample(1234.5, 5 * 10**6 + 100 + 1, ())


def test_generation_times_every_token_with_its_logits(engine: Scripted) -> None:
    sample = protocol.run(engine, Workload("generation", 3), chunk=2, contexts=Contexts())
    ids = token_ids(3, VOCABULARY)
    steps = [one for token in ids for one in (("decode", (token,)), ("logits", ()), ("clock", ()))]
    assert engine.calls == [("clear", ()), ("synchronise", ()), ("clock", ()), *steps]
    each = 10**4 + 100 + 1
    assert sample == Sample(1234.5, 3 * each, (each, each, each))


def test_slices_do_the_same_work_as_a_whole_generation(engine: Scripted) -> None:
    workload, contexts = Workload("generation", 5, depth=4), Contexts()
    whole = protocol.run(engine, workload, 3, contexts)
    after, engine.calls = engine.fed, []
    slices = [protocol.run_slice(engine, workload, 3, contexts, start, 2) for start in (0, 2, 4)]
    assert engine.fed == after
    assert names(engine.calls).count("load") == 1
    assert [len(one.token_nanoseconds) for one in slices] == [2, 2, 1]
    assert protocol.joined(slices) == whole


@pytest.mark.parametrize("kind", ["prefill", "generation"])
def test_context_is_fed_in_chunks_and_finished_before_the_clock_starts(kind: WorkloadKind, engine: Scripted) -> None:
    sample = protocol.run(engine, Workload(kind, 1, depth=5), 3, Contexts())
    started = names(engine.calls).index("clock")
    ids = token_ids(6, VOCABULARY)
    assert engine.calls[:started] == [
        ("clear", ()),
        ("prefill", ids[:3]),
        ("prefill", ids[3:5]),
        ("save", ()),
        ("load", ()),
        ("synchronise", ()),
    ]
    assert fed(engine.calls[started:]) == ids[5:]
    assert sample.nanoseconds < 2 * 10**6


@pytest.mark.parametrize("kind", ["prefill", "generation"])
def test_context_is_read_once_and_its_state_put_back_before_every_later_repetition(
    kind: WorkloadKind, engine: Scripted
) -> None:
    contexts, deep, deeper = Contexts(), Workload(kind, 2, depth=5), Workload(kind, 2, depth=7)
    first = protocol.run(engine, deep, 3, contexts)
    protocol.run(engine, deeper, 3, contexts)
    protocol.run(engine, replace(deep, depth=0), 3, contexts)
    engine.calls = []
    assert protocol.run(engine, deep, 3, contexts) == first
    assert names(engine.calls)[:3] == ["load", "synchronise", "clock"]
    assert engine.fed == token_ids(7, VOCABULARY)


WORKLOADS = st.builds(Workload, st.sampled_from(["prefill", "generation"]), st.integers(1, 300), st.integers(0, 300))


@given(WORKLOADS, st.integers(1, 700))
def test_every_token_is_fed_once_and_in_order_in_chunks_as_large_as_allowed(workload: Workload, chunk: int) -> None:
    engine = Scripted()
    sample = protocol.run(engine, workload, chunk, Contexts())
    assert engine.fed == fed(engine.calls) == token_ids(workload.depth + workload.tokens, VOCABULARY)
    assert names(engine.calls).count("clear") == 1
    lengths = [len(tokens) for name, tokens in engine.calls if name == "prefill"]
    chunked = workload.depth, workload.tokens if workload.kind == "prefill" else 0
    assert lengths == [min(chunk, count - start) for count in chunked for start in range(0, count, chunk)]
    assert len(sample.token_nanoseconds) == (workload.tokens if workload.kind == "generation" else 0)
    if sample.token_nanoseconds:
        assert sum(sample.token_nanoseconds) == sample.nanoseconds


def test_repetitions_make_the_same_calls(engine: Scripted) -> None:
    workload, contexts = Workload("generation", 4), Contexts()
    protocol.run(engine, workload, 2, contexts)
    first, engine.calls = engine.calls, []
    protocol.run(engine, workload, 2, contexts)
    assert engine.calls == first


# Tokens


def test_token_ids_never_change() -> None:
    assert token_ids(8, VOCABULARY) == (21223, 9886, 42659, 4748, 35120, 23966, 3801, 33255)
    assert token_ids(4, 128) == (42, 20, 83, 10)


def test_token_ids_do_not_use_the_global_random_state() -> None:
    expected = token_ids(50, VOCABULARY)
    random.seed(99)
    following = random.Random(99)
    token_ids.cache_clear()
    assert token_ids(50, VOCABULARY) == expected
    assert random.random() == following.random()


@given(st.integers(0, 300), st.integers(0, 300), st.integers(2, 2**17))
def test_a_longer_prompt_begins_with_the_shorter_one(count: int, more: int, vocabulary: int) -> None:
    assert token_ids(count + more, vocabulary)[:count] == token_ids(count, vocabulary)


@given(st.integers(2, 2**20))
def test_token_ids_are_in_the_vocabulary_and_never_the_end_of_text(vocabulary: int) -> None:
    ids = token_ids(200, vocabulary)
    assert len(ids) == 200
    assert 1 <= min(ids) <= max(ids) < vocabulary


def test_token_ids_spread_over_the_vocabulary() -> None:
    ids = token_ids(4096, VOCABULARY)
    assert len(set(ids)) > 3900
    assert {identity * 8 // VOCABULARY for identity in ids} == set(range(8))


# What a user may feed


def test_a_prompt_is_fed_in_chunks() -> None:
    engine = Scripted()
    protocol.prefill(engine, [0, 1, VOCABULARY - 1], chunk=2)
    assert engine.calls == [("prefill", (0, 1)), ("prefill", (VOCABULARY - 1,))]


def test_an_empty_prompt_is_refused() -> None:
    engine = Scripted()
    with pytest.raises(OptionError, match="a prefill of no tokens; give at least one"):
        protocol.prefill(engine, [], chunk=2)
    assert engine.calls == []


@pytest.mark.parametrize("token", [-1, VOCABULARY, 2**31])
def test_a_token_outside_the_vocabulary_is_refused_before_anything_is_fed(token: int) -> None:
    engine = Scripted()
    with pytest.raises(OptionError, match=f"token {token} is outside the vocabulary of {VOCABULARY}"):
        protocol.prefill(engine, [1, 2, token], chunk=2)
    assert engine.calls == []


def test_the_scripted_engine_is_an_engine() -> None:
    engine: Engine = Scripted()
    assert engine.logits().dtype == np.float32
