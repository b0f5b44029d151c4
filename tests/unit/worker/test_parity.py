"""The check drives an engine along every path that is timed; a scripted engine shows that each one counts."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.samples import KNOWN_SEED
from pytest_rwkvperf.oracle import bounds
from pytest_rwkvperf.oracle.agreement import BATCH_LENGTHS, DEPTH, PROMPT, Answer
from pytest_rwkvperf.oracle.bounds import Bound
from pytest_rwkvperf.worker import parity, protocol
from pytest_rwkvperf.worker.parity import KeptAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pytest_rwkvperf.core.engine import Batch

VOCABULARY = 50
BOUND = Bound(1e-3)


class Scripted:
    """Logits are a hash of the tokens since the last clear; each fault is a switch."""

    def __init__(self, fault: str = "") -> None:
        self.vocabulary = VOCABULARY
        self.device = Device("cpu", "scripted", "cpu")
        self.calls: list[str] = []
        self._fault = fault
        self._seen: list[int] = []
        self._clears = 0

    def clear(self) -> None:
        self.calls.append("clear")
        self._clears += 1
        if self._fault != "keeps state":
            self._seen = []

    def save_state(self) -> list[int]:
        return list(self._seen)

    def load_state(self, state: list[int]) -> None:
        self._seen = list(state)

    def prefill(self, tokens: Sequence[int]) -> None:
        self.calls.append(f"prefill {len(tokens)}")
        last = tokens[-1:] if self._fault == "drops all but a chunk's last token" else tokens
        if self._fault == "reads half of long calls" and len(tokens) > PROMPT:
            last = tokens[::2]
        if self._fault != "ignores what follows 40 tokens" or len(self._seen) < 40:
            self._seen += last

    def decode(self, token: int) -> None:
        self.calls.append("decode")
        self._seen.append(token if self._fault != "decodes another token" else 1)

    def synchronise(self) -> None:
        pass

    def logits(self) -> npt.NDArray[np.float32]:
        logits = right(self._seen)
        if self._fault == "is another the third time" and self._clears >= 3:
            logits[3] += np.float32(0.01)
        if self._fault == "is not a number the third time" and self._clears >= 3:
            logits[3] = np.nan
        if self._fault == "is not a number when long" and len(self._seen) > PROMPT:
            logits[3] = np.nan
        if self._fault == "chunks matter" and "prefill 37" in self.calls:
            logits[3] += np.float32(0.5)
        return logits


def right(tokens: Sequence[int]) -> npt.NDArray[np.float32]:
    return _right(tuple(tokens)).copy()


@cache
def _right(tokens: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return np.random.default_rng(hash(tokens) % 2**32).standard_normal(VOCABULARY).astype(np.float32)


def short(fault: str = "", chunk: int = 128) -> str:
    wanted = right(parity.tokens(VOCABULARY, PROMPT))
    return bounds.broken_short(parity.short(Scripted(fault), chunk, wanted, BOUND.relative_l2), BOUND)


def deep(fault: str = "", chunk: int = 128) -> str:
    wanted = right(parity.tokens(VOCABULARY, DEPTH))
    return bounds.broken_deep(parity.deep(Scripted(fault), chunk, wanted, BOUND.relative_l2), BOUND)


@pytest.mark.parametrize("chunk", [1, 8, 32, 37, 128, 512])
def test_a_right_engine_passes_with_any_chunk(chunk: int) -> None:
    assert short(chunk=chunk) == ""
    assert deep(chunk=chunk) == ""


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("keeps state", "generation: "),
        ("decodes another token", "generation: "),
        ("drops all but a chunk's last token", "prefill: "),
        ("is another the third time", "a second pass after a state clear differs"),
        ("is not a number the third time", "a second pass after a state clear gives logits that are not finite"),
    ],
)
def test_the_short_check_sees(fault: str, problem: str) -> None:
    assert short(fault).startswith(problem)


@pytest.mark.parametrize(
    ("fault", "problem"),
    [("drops all but a chunk's last token", "at depth 600: "), ("chunks matter", "another chunk size differs")],
)
def test_the_deep_check_sees(fault: str, problem: str) -> None:
    assert deep(fault).startswith(problem)


def test_the_short_check_runs_every_timed_path_and_leaves_the_state_clear() -> None:
    engine = Scripted()
    parity.short(engine, 128, right(parity.tokens(VOCABULARY, PROMPT)), 1e-3)
    generation = [f"prefill {PROMPT - parity.DECODED}", *["decode"] * parity.DECODED]
    assert engine.calls == ["clear", "prefill 32", "clear", *generation, "clear", "prefill 32", "clear"]


def test_the_deep_check_crosses_boundaries_of_the_case_s_chunks_and_of_odd_ones() -> None:
    engine = Scripted()
    parity.deep(engine, 512, right(parity.tokens(VOCABULARY, DEPTH)), 1e-3)
    odd = ["prefill 37"] * (600 // 37) + [f"prefill {600 % 37}"]
    assert engine.calls == ["clear", "prefill 512", "prefill 88", "clear", *odd, "clear"]


def fresh(fault: str = "", chunk: int = 128, seed: int = 0, count: int = 200) -> str:
    return bounds.broken_fresh(parity.fresh(Scripted(fault), chunk, count, random.Random(seed)), BOUND)


@pytest.mark.parametrize("chunk", [1, 2, 8, 37, 128, 512])
@pytest.mark.parametrize("count", [2, 3, 16, 200, 600])
def test_new_tokens_pass_in_a_right_engine(chunk: int, count: int) -> None:
    assert [fresh(chunk=chunk, count=count, seed=seed) for seed in range(5)] == [""] * 5


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("reads half of long calls", "a prompt of 200 new tokens in the case's chunks and in other pieces"),
        ("is not a number when long", "a prompt of 200 new tokens gives logits that are not finite"),
    ],
)
def test_new_tokens_show(fault: str, problem: str) -> None:
    assert all(fresh(fault, seed=seed).startswith(problem) for seed in range(20))


def test_tokens_that_change_nothing_are_seen_where_the_position_lies_behind_them() -> None:
    found = [
        parity.fresh(Scripted("ignores what follows 40 tokens"), 8, 200, random.Random(seed)) for seed in range(20)
    ]
    late = [each for each in found if each.position >= 50]
    assert len(late) > 10
    assert not any(each.changed for each in late)


def test_new_tokens_are_read_whole_to_a_random_position_and_in_pieces() -> None:
    found, lengths, calls = set(), set(), set()
    for seed in range(20):
        engine = Scripted()
        result = parity.fresh(engine, 128, 200, random.Random(seed))
        whole = ["clear", "prefill 128", "prefill 72", "clear"]
        assert engine.calls[:4] == whole
        assert engine.calls[-1] == "clear"
        read = [int(call.partition(" ")[2]) for call in engine.calls[4:] if call != "clear"]
        assert sum(read) == result.position + 200
        lengths |= set(read[1 + (result.position > 128) :])
        found.add(result.position)
        calls.add(tuple(engine.calls))
    assert len(found) > 10
    assert len(calls) == 20
    assert max(lengths) <= 64


@given(st.integers(1, 2000), st.integers(1, 600), st.integers())
def test_pieces_cover_every_token_once_and_are_at_most_half_of_a_call(count: int, chunk: int, seed: int) -> None:
    found = [*parity.pieces(count, chunk, random.Random(seed))]
    assert [index for piece in found for index in piece] == [*range(count)]
    assert max(map(len, found)) <= max(1, min(count, chunk) // 2)


def timed(workload: Workload, fault: str = "", *, wrong: bool = False) -> tuple[str, Scripted]:
    """What is found in an answer, which is right unless `wrong`; and the engine that it was compared with."""
    tokens = protocol.drawn_ids(random.Random(1), workload.tokens, VOCABULARY)
    context = protocol.token_ids(workload.depth, VOCABULARY, KNOWN_SEED)
    answer = KeptAnswer(0, context, tokens, right([*context, *tokens[wrong:]]))
    engine = Scripted(fault)
    found = parity.in_pieces(engine, 128, workload, answer, 2 * BOUND.relative_l2)
    return bounds.broken_answer(Answer(1, "pieces", found), BOUND), engine


@pytest.mark.parametrize("name", ["pp1", "pp2", "pp200", "tg1", "tg50", "pp200@d300", "tg50@d300"])
def test_an_answer_is_compared_with_the_same_tokens_in_other_pieces(name: str) -> None:
    workload = Workload.parse(name)
    assert timed(workload)[0] == ""
    problem, engine = timed(workload, wrong=True)
    assert problem.startswith("relative L2 ")
    assert engine.calls[0] == engine.calls[-1] == "clear"
    assert ("decode" in engine.calls) == (workload.kind == "prefill" and workload.tokens > 1)


def test_an_answer_that_the_pieces_make_no_number_of_is_refused() -> None:
    assert "not finite" in timed(Workload("prefill", 200), "is not a number when long")[0]


# Batches


class ScriptedBatch:
    """Sequences of `Scripted`'s kind; each fault is a switch."""

    def __init__(self, sequences: int, fault: str = "", chunk: int = 64) -> None:
        self.sequences = sequences
        self.calls: list[tuple[int, ...]] = []
        """The lengths of each prefill's parts."""
        self.steps = 0
        self._fault, self._chunk = fault, chunk
        self._seen: list[list[int]] = [[] for _ in range(sequences)]
        self._stale = {each: right([-each]) for each in range(sequences)}

    def clear(self) -> None:
        self._seen = [[] for _ in range(self.sequences)]

    def clear_sequence(self, sequence: int) -> None:
        if self._fault == "clears all":
            self.clear()
        if self._fault != "clears none":
            self._seen[sequence] = []

    def save_state(self) -> list[list[int]]:
        return [list(own) for own in self._seen]

    def load_state(self, state: list[list[int]]) -> None:
        self._seen = [list(own) for own in state]
        if self._fault == "loads two states swapped":
            self._seen[0], self._seen[1] = self._seen[1], self._seen[0]

    def prefill(self, tokens: Sequence[Sequence[int]]) -> None:
        self.calls.append(tuple(map(len, tokens)))
        assert 0 < sum(self.calls[-1]) <= max(self._chunk, self.sequences)
        self._read(tokens)

    def decode(self, tokens: Sequence[int]) -> None:
        self.steps += 1
        if self._fault == "decodes one token for all":
            tokens = [tokens[0]] * self.sequences
        self._read([[token] for token in tokens])

    def _read(self, tokens: Sequence[Sequence[int]]) -> None:
        for own, part in zip(self._seen, tokens, strict=True):
            own.extend(part)
        if self._fault == "swaps two states" and tokens[0]:
            self._seen[0], self._seen[-1] = self._seen[-1], self._seen[0]
        if self._fault == "shares a state":
            self._seen[1] = self._seen[0]
        if self._fault == "drops the last" and tokens[-1]:
            del self._seen[-1][-len(tokens[-1]) :]

    def synchronise(self) -> None:
        pass

    def logits(self) -> npt.NDArray[np.float32]:
        rows = [right(own) for own in self._seen]
        if self._fault == "gives the last one stale logits":
            rows[-1] = right([-1])
        if self._fault == "gives logits in another order":
            rows = [*rows[1:], rows[0]]
        if self._fault == "is not a number":
            rows[1][3] = np.nan
        return np.stack(rows)


def batched(sequences: int, fault: str = "", *, chunk: int = 64, seed: int = 0) -> tuple[str, ScriptedBatch]:
    """What the check of a batch finds."""
    wanted = [right(parity.tokens(VOCABULARY, count)) for count in BATCH_LENGTHS]
    batch = ScriptedBatch(sequences, fault, chunk)
    found = parity.batch(Scripted(), batch, chunk, wanted, BOUND.relative_l2, random.Random(seed))
    json.dumps(asdict(found), allow_nan=False)
    return bounds.broken_batch(found, BOUND), batch


@pytest.mark.parametrize("chunk", [1, 8, 64, 512])
@pytest.mark.parametrize("sequences", [2, 3, 8, 64, 256])
def test_a_right_batch_passes_with_any_chunk(sequences: int, chunk: int) -> None:
    assert batched(sequences, chunk=chunk)[0] == ""


@pytest.mark.parametrize("sequences", [2, 3, 8, 64, 256])
@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        # Sequences that have read equally much of the fixed prompt have the same state.
        ("swaps two states", "(prefill|generation) of sequence "),
        ("shares a state", "(prefill|generation) of sequence "),
        ("drops the last", "prefill of sequence "),
        ("gives the last one stale logits", "prefill of sequence "),
        ("gives logits in another order", "prefill of sequence "),
        ("is not a number", "prefill of sequence 2 of "),
        ("decodes one token for all", "generation of sequence "),
        ("clears all", "sequence "),
        ("clears none", "sequence "),
        ("loads two states swapped", "sequence "),
    ],
)
def test_the_check_of_a_batch_sees(fault: str, problem: str, sequences: int) -> None:
    for seed in range(max(1, 40 // sequences)):
        assert re.match(problem, batched(sequences, fault, seed=seed)[0]), (fault, seed)


def test_a_cleared_neighbour_is_named() -> None:
    found = batched(4, "clears all")[0]
    assert re.match(
        r"sequence \d of 4 at once: (with another one cleared, it|the same tokens alone) gives? logits", found
    )


@given(st.integers(2, 1024), st.randoms(use_true_random=False))
def test_any_two_sequences_read_different_numbers_of_tokens_in_at_least_one_pass(
    sequences: int, source: random.Random
) -> None:
    found = parity.passes(sequences, source)
    assert len({*zip(*found, strict=True)}) == sequences
    assert len(found) == (1 if sequences <= 16 else 2 if sequences <= 256 else 3)


class Unbound:
    """A batch that only notes what its sequences read."""

    def __init__(self, sequences: int) -> None:
        self.sequences = sequences
        self.calls: list[list[Sequence[int]]] = []

    def prefill(self, tokens: list[Sequence[int]]) -> None:
        self.calls.append(tokens)

    def logits(self) -> npt.NDArray[np.float32]:
        return np.full((self.sequences, 1), len(self.calls))


def staggered(prompts: Sequence[Sequence[int]], chunk: int, source: random.Random) -> list[list[Sequence[int]]]:
    """The calls that feed the prompts; all tokens were fed in order, and the logits were taken after the last ones."""
    batch = Unbound(len(prompts))
    ends = parity.feed_staggered(cast("Batch", batch), prompts, chunk, source)
    for each, prompt in enumerate(prompts):
        assert [token for call in batch.calls for token in call[each]] == [*prompt]
        if prompt:
            assert ends[each] == max(index for index, call in enumerate(batch.calls, start=1) if call[each])
    return batch.calls


@given(st.lists(st.integers(0, 40), min_size=2, max_size=300), st.integers(1, 600), st.randoms(use_true_random=False))
def test_a_call_has_at_most_a_chunk_in_pieces_of_at_most_two_lengths(
    lengths: list[int], chunk: int, source: random.Random
) -> None:
    for call in staggered([range(length) for length in lengths], chunk, source):
        pieces = [len(part) for part in call if part]
        assert 0 < sum(pieces) <= max(chunk, len(pieces))
        assert len({*pieces}) <= 2


@pytest.mark.parametrize("sequences", [2, 3, 8, 64, 256])
def test_sequences_start_and_end_at_different_calls_and_wait_while_others_advance(sequences: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(40):
        source = random.Random(seed)
        calls = staggered([range(start) for start in parity.passes(sequences, source)[0]], 512, source)
        fed = [[index for index, call in enumerate(calls) if call[each]] for each in range(sequences)]
        counts["starts"] += len({indices[0] for indices in fed}) > 1
        counts["ends"] += len({indices[-1] for indices in fed}) > 1
        counts["waits"] += any(len(indices) <= indices[-1] - indices[0] for indices in fed)
        counts["lengths"] += any(len({len(part) for part in call if part}) == 2 for call in calls)
    least = 12 if sequences == 2 else 25
    assert all(counts[what] >= least for what in ("starts", "ends", "waits", "lengths")), counts


@pytest.mark.parametrize(("sequences", "most"), [(64, 70), (128, 80), (256, 100)])
def test_many_sequences_are_checked_in_few_calls(sequences: int, most: int) -> None:
    for seed in range(5):
        batch = batched(sequences, chunk=512, seed=seed)[1]
        assert len(batch.calls) + batch.steps <= most


def kept(batch: int, *, known: bool) -> list[int]:
    """The sequences of a repetition that are kept."""
    repetitions, workload = protocol.Repetitions(VOCABULARY), Workload("generation", 3, 5, batch)
    repetitions.draw(workload, known=known)
    logits = np.zeros((batch, VOCABULARY), np.float32)
    answers = parity.kept(repetitions, workload, logits, known=known)
    assert all(answer.tokens == repetitions.tokens[answer.sequence] for answer in answers)
    assert all(answer.context == repetitions.context(workload, answer.sequence) for answer in answers)
    sequences = [answer.sequence for answer in answers]
    assert not known or repetitions.known_sequence(batch) not in sequences
    return sequences


def test_of_a_batch_some_unforeseeable_sequences_are_kept_without_the_one_that_was_compared() -> None:
    assert kept(1, known=False) == [0]
    assert len(kept(2, known=True)) == 1
    assert sorted(kept(2, known=False)) == [0, 1]
    many = [frozenset(kept(9, known=True)) for _ in range(20)]
    assert {len(each) for each in many} == {parity.COMPARED}
    assert len({*many}) > 5


def test_the_worst_of_several_kept_sequences_is_told() -> None:
    workload = Workload("prefill", 20, batch=3)
    tokens = [protocol.drawn_ids(random.Random(each), 20, VOCABULARY) for each in range(3)]
    answers = [KeptAnswer(each, (), own, right(own[each == 1 :])) for each, own in enumerate(tokens)]
    found = parity.worst_in_pieces(Scripted(), 128, workload, answers, BOUND.relative_l2)
    assert found.sequence == 1
    assert "relative L2" in bounds.broken_answer(Answer(1, "pieces", found.agreement, 1), BOUND)


def test_results_are_strict_json() -> None:
    wanted = right(parity.tokens(VOCABULARY, PROMPT))
    found = parity.short(Scripted("is not a number the third time"), 128, wanted, 1e-3)
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["repeat"] == -1


def test_prompt_is_made_of_the_measured_tokens() -> None:
    assert parity.tokens(VOCABULARY, 32) == protocol.token_ids(32, VOCABULARY)
    assert 0 not in parity.tokens(VOCABULARY, DEPTH)
