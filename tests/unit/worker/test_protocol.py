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
    sample = protocol.run(engine, Workload("prefill", 5), 2, Repetitions(VOCABULARY), known=True)
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
    sample = protocol.run(engine, Workload("generation", 3), 2, Repetitions(VOCABULARY), known=True)
    ids = known(3)
    steps = [one for token in ids for one in (("decode", (token,)), ("logits", ()), ("clock", ()))]
    assert engine.calls == [("clear", ()), ("synchronise", ()), ("clock", ()), *steps]
    each = 10**4 + 100 + 1
    assert sample == Sample(1234.5, 3 * each, (each, each, each))


def test_slices_do_the_same_work_as_a_whole_generation(engine: Scripted) -> None:
    workload, shared = Workload("generation", 5, depth=4), Repetitions(VOCABULARY)
    whole = protocol.run(engine, workload, 3, shared, known=True)
    after, engine.calls = engine.fed, []
    slices = [protocol.run_slice(engine, workload, 3, shared, start, 2, known=True) for start in (0, 2, 4)]
    assert engine.fed == after
    assert names(engine.calls).count("load") == 1
    assert [len(one.token_nanoseconds) for one in slices] == [2, 2, 1]
    assert protocol.joined(slices) == whole


@pytest.mark.parametrize("kind", ["prefill", "generation"])
def test_context_is_fed_in_chunks_and_finished_before_the_clock_starts(kind: WorkloadKind, engine: Scripted) -> None:
    sample = protocol.run(engine, Workload(kind, 1, depth=5), 3, Repetitions(VOCABULARY), known=True)
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
    shared, deep, deeper = Repetitions(VOCABULARY), Workload(kind, 2, depth=5), Workload(kind, 2, depth=7)
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
    sample = protocol.run(engine, workload, chunk, Repetitions(VOCABULARY), known=True)
    assert engine.fed == fed(engine.calls) == known(workload.depth + workload.tokens)
    assert names(engine.calls).count("clear") == 1
    lengths = [len(tokens) for name, tokens in engine.calls if name == "prefill"]
    chunked = workload.depth, workload.tokens if workload.kind == "prefill" else 0
    assert lengths == [min(chunk, count - start) for count in chunked for start in range(0, count, chunk)]
    assert len(sample.token_nanoseconds) == (workload.tokens if workload.kind == "generation" else 0)
    if sample.token_nanoseconds:
        assert sum(sample.token_nanoseconds) == sample.nanoseconds


def test_repetitions_make_the_same_calls(engine: Scripted) -> None:
    workload, shared = Workload("generation", 4), Repetitions(VOCABULARY)
    protocol.run(engine, workload, 2, shared, known=True)
    first, engine.calls = engine.calls, []
    protocol.run(engine, workload, 2, shared, known=True)
    assert engine.calls == first


@pytest.mark.parametrize("kind", ["prefill", "generation"])
def test_repetitions_get_new_tokens_after_the_same_context(kind: WorkloadKind, engine: Scripted) -> None:
    shared, prompts = Repetitions(VOCABULARY), []
    for _ in range(3):
        protocol.run(engine, Workload(kind, 8, depth=4), 64, shared)
        (tokens,) = shared.tokens
        assert engine.fed == (*known(4), *tokens)
        prompts.append(tokens)
    assert len({*prompts, known(12)[4:]}) == 4


def test_the_answer_is_that_of_the_last_repetition_and_of_a_generations_last_slice(engine: Scripted) -> None:
    shared, generation = Repetitions(VOCABULARY), Workload("generation", 5)
    answers = []
    protocol.run(engine, Workload("prefill", 7, depth=2), 3, shared)
    answers.append(shared.logits)
    for start, count in ((0, 3), (3, 2)):
        protocol.run_slice(engine, generation, 3, shared, start, count)
        answers.append(shared.logits)
    assert [int(answer[0]) for answer in answers if answer is not None] == [9, 3, 5]


def test_the_slices_of_a_generation_continue_its_tokens(engine: Scripted) -> None:
    shared, generation = Repetitions(VOCABULARY), Workload("generation", 5)
    for start, count in ((0, 3), (3, 2)):
        protocol.run_slice(engine, generation, 3, shared, start, count)
    assert shared.tokens == (engine.fed,)
    assert len(engine.fed) == 5


# Batches


class ScriptedBatch:
    """As `Scripted`, of sequences: a call's tokens are those of all of them."""

    def __init__(self, sequences: int) -> None:
        self.sequences = sequences
        self.fed: tuple[tuple[int, ...], ...] = ((),) * sequences
        self.lengths: list[list[int]] = []
        """Of each prefill's parts."""
        self.names: list[str] = []

    def clear(self) -> None:
        self.names.append("clear")
        self.fed = ((),) * self.sequences

    def clear_sequence(self, sequence: int) -> None:
        self.names.append("clear one")
        self.fed = tuple(() if each == sequence else own for each, own in enumerate(self.fed))

    def save_state(self) -> tuple[tuple[int, ...], ...]:
        self.names.append("save")
        return self.fed

    def load_state(self, state: tuple[tuple[int, ...], ...]) -> None:
        self.names.append("load")
        self.fed = state

    def prefill(self, tokens: Sequence[Sequence[int]]) -> None:
        self.names.append("prefill")
        self.lengths.append([*map(len, tokens)])
        self.fed = tuple((*own, *part) for own, part in zip(self.fed, tokens, strict=True))

    def decode(self, tokens: Sequence[int]) -> None:
        self.names.append("decode")
        self.fed = tuple((*own, token) for own, token in zip(self.fed, tokens, strict=True))

    def synchronise(self) -> None:
        self.names.append("synchronise")

    def logits(self) -> npt.NDArray[np.float32]:
        self.names.append("logits")
        return np.array([[len(own)] * 3 for own in self.fed], np.float32)


def test_a_prefill_of_a_batch_has_equal_shares_of_the_chunk_in_each_call() -> None:
    batch, shared = ScriptedBatch(3), Repetitions(VOCABULARY)
    sample = protocol.run(batch, Workload("prefill", 7, batch=3), 10, shared)
    assert batch.names == ["clear", "synchronise", "prefill", "prefill", "prefill", "logits"]
    assert batch.lengths == [[3, 3, 3], [3, 3, 3], [1, 1, 1]]
    assert batch.fed == shared.tokens
    assert len({*batch.fed}) == 3
    assert sample.token_nanoseconds == ()
    assert shared.logits is not None
    assert shared.logits.shape == (3, 3)


def test_a_chunk_smaller_than_the_batch_still_advances_every_sequence() -> None:
    batch = ScriptedBatch(5)
    protocol.run(batch, Workload("prefill", 2, batch=5), 4, Repetitions(VOCABULARY))
    assert batch.lengths == [[1] * 5] * 2


def test_a_generation_of_a_batch_is_timed_by_steps_with_all_logits() -> None:
    batch, shared = ScriptedBatch(4), Repetitions(VOCABULARY)
    sample = protocol.run(batch, Workload("generation", 3, batch=4), 10, shared)
    assert batch.names == ["clear", "synchronise", *["decode", "logits"] * 3]
    assert len(sample.token_nanoseconds) == 3
    assert sum(sample.token_nanoseconds) == sample.nanoseconds
    assert batch.fed == shared.tokens
    assert len({*batch.fed}) == 4


def test_the_slices_of_a_batchs_generation_continue_its_tokens() -> None:
    batch, shared, workload = ScriptedBatch(2), Repetitions(VOCABULARY), Workload("generation", 5, 4, 2)
    for start in (0, 2, 4):
        protocol.run_slice(batch, workload, 10, shared, start, 2)
    assert batch.names.count("load") == 1
    contexts = tuple(shared.context(workload, each) for each in (0, 1))
    assert batch.fed == tuple((*context, *own) for context, own in zip(contexts, shared.tokens, strict=True))


def test_one_sequence_of_a_batch_has_the_known_prompt_and_each_a_context_of_its_own() -> None:
    places = set()
    for _ in range(40):
        batch, shared, workload = ScriptedBatch(3), Repetitions(VOCABULARY), Workload("generation", 2, 5, 3)
        protocol.run(batch, workload, 6, shared, known=True)
        place = shared.known_sequence(3)
        assert batch.fed[place] == known(7)
        assert len({own[:5] for own in batch.fed}) == 3
        protocol.run(batch, workload, 6, shared, known=True)
        assert batch.names.count("save") == 1
        assert batch.fed[place] == known(7)
        places.add(place)
    assert places == {0, 1, 2}, "each is missed with a probability of 1e-7"


def test_a_batchs_states_are_not_those_of_one_sequence_nor_of_another_batch() -> None:
    shared, one, two = Repetitions(VOCABULARY), Scripted(), ScriptedBatch(2)
    single = Workload("generation", 2, 5)
    protocol.run(one, single, 6, shared)
    protocol.run(two, replace(single, batch=2), 6, shared)
    shared.forget_batches()
    one.calls, two.names = [], []
    protocol.run(one, single, 6, shared)
    protocol.run(two, replace(single, batch=2), 6, shared)
    assert "save" not in names(one.calls)
    assert two.names[0] == "clear"
    assert "save" in two.names


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
