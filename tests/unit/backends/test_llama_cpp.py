"""llama.cpp's batches, with a library that notes what it is given and computes nothing."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pytest_rwkvperf.backends.llama_cpp import LlamaCppBatch
from pytest_rwkvperf.core.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator

VOCABULARY = 2

Fed = tuple[int, int, int, bool]
"""Sequence, token, position, and whether its logits are wanted."""


class Library:
    """The logits that it gives are the sequences of the wanted tokens, in their order."""

    def __init__(self) -> None:
        self.calls: list[list[Fed]] = []
        self.cleared: list[int] = []
        self.status = 0

    def llama_get_memory(self, _context: object) -> None:
        pass

    def llama_memory_clear(self, _memory: object, _data: object) -> None:
        pass

    def llama_memory_seq_rm(self, _memory: object, sequence: int, _start: int, _stop: int) -> bool:
        self.cleared.append(sequence)
        return sequence < 3

    def llama_synchronize(self, _context: object) -> None:
        pass

    def llama_batch(self, *fields: Any) -> SimpleNamespace:  # noqa: ANN401 - ctypes
        names = ("count", "tokens", "embeddings", "positions", "each_has", "owned_by", "wanted")
        return SimpleNamespace(**dict(zip(names, fields, strict=True)))

    def llama_decode(self, _context: object, batch: SimpleNamespace) -> int:
        self.calls.append([*self._fed(batch)])
        return self.status

    def _fed(self, batch: SimpleNamespace) -> Iterator[Fed]:
        for index in range(batch.count):
            assert batch.each_has[index] == 1
            yield (
                batch.owned_by[index].contents.value,
                batch.tokens[index],
                batch.positions[index],
                bool(batch.wanted[index]),
            )

    def llama_get_logits(self, _context: object) -> Any:  # noqa: ANN401 - ctypes
        rows = [float(sequence) for sequence, _, _, wanted in self.calls[-1] if wanted]
        numbers = (ctypes.c_float * (len(rows) * VOCABULARY))(*np.repeat(rows, VOCABULARY).tolist())
        return ctypes.cast(numbers, ctypes.POINTER(ctypes.c_float))


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
def batch(library: Library) -> LlamaCppBatch:
    return LlamaCppBatch(library, None, 3, VOCABULARY)


def test_each_sequence_goes_on_at_its_own_position_and_wants_its_last_logits(
    library: Library, batch: LlamaCppBatch
) -> None:
    batch.prefill([(5, 6), (), (7,)])
    batch.decode((8, 9, 10))
    batch.prefill([(), (11, 12), ()])
    assert library.calls == [
        [(0, 5, 0, False), (0, 6, 1, True), (2, 7, 0, True)],
        [(0, 8, 2, True), (1, 9, 0, True), (2, 10, 1, True)],
        [(1, 11, 1, False), (1, 12, 2, True)],
    ]


def test_a_cleared_sequence_begins_anew_and_no_other_does(library: Library, batch: LlamaCppBatch) -> None:
    batch.decode((1, 2, 3))
    batch.clear_sequence(1)
    batch.decode((4, 5, 6))
    assert library.cleared == [1]
    assert [position for _, _, position, _ in library.calls[-1]] == [1, 0, 1]
    batch.clear()
    batch.decode((7, 8, 9))
    assert [position for _, _, position, _ in library.calls[-1]] == [0, 0, 0]
    with pytest.raises(BackendError, match="could not clear sequence 3"):
        batch.clear_sequence(3)


def test_a_row_of_the_logits_is_a_sequences_and_not_a_number_where_it_was_not_advanced(batch: LlamaCppBatch) -> None:
    batch.decode((1, 2, 3))
    assert batch.logits().tolist() == [[0, 0], [1, 1], [2, 2]]
    batch.prefill([(1, 2), (), (3,)])
    assert np.isnan(batch.logits()[1]).all()
    assert batch.logits()[[0, 2]].tolist() == [[0, 0], [2, 2]]


def test_a_call_that_fails_advances_no_position(library: Library, batch: LlamaCppBatch) -> None:
    library.status = -3
    with pytest.raises(BackendError, match="llama_decode returned -3 for 2 tokens of 3 sequences"):
        batch.prefill([(1, 2), (), ()])
    library.status = 0
    batch.decode((1, 2, 3))
    assert [position for _, _, position, _ in library.calls[-1]] == [0, 0, 0]
