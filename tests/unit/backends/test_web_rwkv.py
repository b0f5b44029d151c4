"""web-rwkv's batches, with a binding that computes nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_rwkvperf.backends import web_rwkv
from pytest_rwkvperf.core.engine import Device, OpenRequest
from pytest_rwkvperf.core.errors import BackendError

if TYPE_CHECKING:
    import numpy.typing as npt

CHUNK = 128
LLVMPIPE = Device("vulkan:0", "llvmpipe", "software")


class WebRwkvError(Exception):
    """The binding's."""


class Batch:
    """Its states count tokens, and its logits are the number of tokens of each sequence's last call."""

    def __init__(self, sequences: int) -> None:
        self.sequences = sequences
        self.freed = False
        self._states = np.zeros((sequences, 1), np.float32)

    def clear(self) -> None:
        self._states[:] = 0

    def clear_sequence(self, sequence: int) -> None:
        self._states[sequence] = 0

    def state(self) -> npt.NDArray[np.float32]:
        return self._states.copy()

    def load_state(self, state: npt.NDArray[np.float32]) -> None:
        self._states[:] = state

    def forward(self, tokens: list[list[int]]) -> npt.NDArray[np.float32]:
        logits = np.array([[len(each)] for each in tokens], np.float32)
        self._states += logits
        return logits

    def free(self) -> None:
        self.freed = True


class Model:
    """Has memory for so many sequences."""

    vocabulary = 1
    most = 8

    def __init__(self, _path: str, **_settings: object) -> None:
        self.made: list[Batch] = []

    def batch(self, sequences: int) -> Batch:
        if sequences > self.most:
            raise WebRwkvError("web-rwkv panicked: out of memory")
        self.made.append(Batch(sequences))
        return self.made[-1]


def engine(monkeypatch: pytest.MonkeyPatch, binding: SimpleNamespace) -> web_rwkv.WebRwkvEngine:
    monkeypatch.setattr(web_rwkv, "import_module", lambda _name: binding)
    request = OpenRequest(Path("model.st"), "fp16", "vulkan:0", 1, CHUNK)
    return web_rwkv.WebRwkvEngine(request, SimpleNamespace(index=0), LLVMPIPE)


def test_a_batch_frees_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model("")
    binding = SimpleNamespace(Model=lambda _path, **_settings: model, Batch=Batch, WebRwkvError=WebRwkvError)
    opened = engine(monkeypatch, binding)
    first = opened.batch(2)
    assert (first.sequences, model.made[0].freed) == (2, False)
    second = opened.batch(3)
    assert [each.freed for each in model.made] == [True, False]
    second.prefill([[1, 2], [], [3]])
    assert second.logits().tolist() == [[2], [0], [1]]
    second.decode([4, 5, 6])
    assert second.logits().tolist() == [[1], [1], [1]]


def test_one_sequence_is_cleared_alone_and_states_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = engine(monkeypatch, SimpleNamespace(Model=Model, Batch=Batch, WebRwkvError=WebRwkvError))
    batch = opened.batch(4)
    batch.prefill([[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]])
    saved = batch.save_state()
    batch.clear_sequence(1)
    assert batch.save_state().ravel().tolist() == [1, 0, 3, 4]
    batch.load_state(saved)
    assert batch.save_state().ravel().tolist() == [1, 2, 3, 4]
    batch.clear()
    assert not batch.save_state().any()


def test_the_model_is_opened_with_the_case_s_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of 256 tokens, which a batch of 256 sequences might ask for, would leave wrong states."""
    given: dict[str, object] = {}

    def opening(path: str, **settings: object) -> Model:
        given.update(settings)
        return Model(path)

    opened = engine(monkeypatch, SimpleNamespace(Model=opening, Batch=Batch, WebRwkvError=WebRwkvError))
    opened.batch(8)
    assert given["chunk"] == CHUNK


def test_a_batch_that_the_engine_refuses_is_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = engine(monkeypatch, SimpleNamespace(Model=Model, Batch=Batch, WebRwkvError=WebRwkvError))
    with pytest.raises(BackendError, match=r"cannot make a batch of 9 sequences: web-rwkv panicked: out of memory$"):
        opened.batch(9)


def test_too_old_a_binding_says_how_to_install_another(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = engine(monkeypatch, SimpleNamespace(Model=Model, WebRwkvError=WebRwkvError))
    with pytest.raises(BackendError, match=r"rwkvperf-web-rwkv is older than batches: pip install \./native/web-rwkv"):
        opened.batch(2)
