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
from pytest_rwkvperf.core.samples import KNOWN_SEED, Sample
from pytest_rwkvperf.worker import protocol
from pytest_rwkvperf.worker.protocol import Repetitions, token_ids

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
        """The number of tokens since the last clear, as every logit."""
        self._take("logits")
        return np.full(self.vocabulary, len(self._fed), np.float32)

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


def known(count: int) -> tuple[int, ...]:
    return token_ids(count, VOCABULARY, KNOWN_SEED)


def names(calls: Sequence[Call]) -> list[str]:
    return [name for name, _ in calls]


def fed(calls: Sequence[Call]) -> tuple[int, ...]:
    return tuple(token for _, tokens in calls for token in tokens)


# Order


def test_a_prefill_is_timed_from_an_idle_engine_to_its_last_logits(engine: Scripted) -> None:
    sample = protocol.run(engine, Workload("prefill", 5), 2, Repetitions(), known=True)
    ids = known(5)
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
    sample = protocol.run(engine, Workload("generation", 3), 2, Repetitions(), known=True)
    ids = known(3)
    steps = [one for token in ids for one in (("decode", (token,)), ("logits", ()), ("clock", ()))]
    assert engine.calls == [("clear", ()), ("synchronise", ()), ("clock", ()), *steps]
    each = 10**4 + 100 + 1
    assert sample == Sample(1234.5, 3 * each, (each, each, each))


def test_slices_do_the_same_work_as_a_whole_generation(engine: Scripted) -> None:
    workload, shared = Workload("generation", 5, depth=4), Repetitions()
    whole = protocol.run(engine, workload, 3, shared, known=True)
    after, engine.calls = engine.fed, []
    slices = [protocol.run_slice(engine, workload, 3, shared, start, 2, known=True) for start in (0, 2, 4)]
    assert engine.fed == after
    assert names(engine.calls).count("load") == 1
    assert [len(one.token_nanoseconds) for one in slices] == [2, 2, 1]
    assert protocol.joined(slices) == whole


@pytest.mark.parametrize("kind", ["prefill", "generation"])
def test_context_is_fed_in_chunks_and_finished_before_the_clock_starts(kind: WorkloadKind, engine: Scripted) -> None:
    sample = protocol.run(engine, Workload(kind, 1, depth=5), 3, Repetitions(), known=True)
    started = names(engine.calls).index("clock")
    ids = known(6)
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
    shared, deep, deeper = Repetitions(), Workload(kind, 2, depth=5), Workload(kind, 2, depth=7)
    first = protocol.run(engine, deep, 3, shared)
    protocol.run(engine, deeper, 3, shared)
    protocol.run(engine, replace(deep, depth=0), 3, shared)
    engine.calls = []
    assert protocol.run(engine, deep, 3, shared, known=True) == first
    assert names(engine.calls)[:3] == ["load", "synchronise", "clock"]
    assert engine.fed == known(7)


WORKLOADS = st.builds(Workload, st.sampled_from(["prefill", "generation"]), st.integers(1, 300), st.integers(0, 300))


@given(WORKLOADS, st.integers(1, 700))
def test_every_token_is_fed_once_and_in_order_in_chunks_as_large_as_allowed(workload: Workload, chunk: int) -> None:
    engine = Scripted()
    sample = protocol.run(engine, workload, chunk, Repetitions(), known=True)
    assert engine.fed == fed(engine.calls) == known(workload.depth + workload.tokens)
    assert names(engine.calls).count("clear") == 1
    lengths = [len(tokens) for name, tokens in engine.calls if name == "prefill"]
    chunked = workload.depth, workload.tokens if workload.kind == "prefill" else 0
    assert lengths == [min(chunk, count - start) for count in chunked for start in range(0, count, chunk)]
    assert len(sample.token_nanoseconds) == (workload.tokens if workload.kind == "generation" else 0)
    if sample.token_nanoseconds:
        assert sum(sample.token_nanoseconds) == sample.nanoseconds


def test_repetitions_make_the_same_calls(engine: Scripted) -> None:
    workload, shared = Workload("generation", 4), Repetitions()
    protocol.run(engine, workload, 2, shared, known=True)
    first, engine.calls = engine.calls, []
    protocol.run(engine, workload, 2, shared, known=True)
    assert engine.calls == first


@pytest.mark.parametrize("kind", ["prefill", "generation"])
def test_repetitions_get_new_tokens_after_the_same_context(kind: WorkloadKind, engine: Scripted) -> None:
    shared, prompts = Repetitions(), []
    for _ in range(3):
        protocol.run(engine, Workload(kind, 8, depth=4), 64, shared)
        assert engine.fed == (*known(4), *shared.tokens)
        prompts.append(shared.tokens)
    assert len({*prompts, known(12)[4:]}) == 4


def test_the_answer_is_that_of_the_last_repetition_and_of_a_generations_last_slice(engine: Scripted) -> None:
    shared, generation = Repetitions(), Workload("generation", 5)
    answers = []
    protocol.run(engine, Workload("prefill", 7, depth=2), 3, shared)
    answers.append(shared.logits)
    for start, count in ((0, 3), (3, 2)):
        protocol.run_slice(engine, generation, 3, shared, start, count)
        answers.append(shared.logits)
    assert [int(answer[0]) for answer in answers if answer is not None] == [9, 3, 5]


def test_the_slices_of_a_generation_continue_its_tokens(engine: Scripted) -> None:
    shared, generation = Repetitions(), Workload("generation", 5)
    for start, count in ((0, 3), (3, 2)):
        protocol.run_slice(engine, generation, 3, shared, start, count)
    assert engine.fed == shared.tokens
    assert len(shared.tokens) == 5


# Tokens


def test_token_ids_never_change() -> None:
    assert token_ids(8, VOCABULARY) == (21223, 9886, 42659, 4748, 35120, 23966, 3801, 33255)
    assert token_ids(4, 128) == (42, 20, 83, 10)


def test_the_known_prompt_and_unforeseeable_ones_are_others_than_the_checks() -> None:
    drawn = [protocol.drawn_ids(protocol.unforeseeable(), 8, VOCABULARY) for _ in range(5)]
    assert len({token_ids(8, VOCABULARY), known(8), *drawn}) == 7


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
