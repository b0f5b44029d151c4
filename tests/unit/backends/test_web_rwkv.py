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

LLVMPIPE = Device("vulkan:0", "llvmpipe", "software")


class WebRwkvError(Exception):
    """The binding's."""


class Batch:
    """Its logits are the number of tokens of each sequence's last call."""

    def __init__(self, sequences: int) -> None:
        self.sequences = sequences
        self.freed = False

    def forward(self, tokens: list[list[int]]) -> npt.NDArray[np.float32]:
        return np.array([[len(each)] for each in tokens], np.float32)

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
    request = OpenRequest(Path("model.st"), "fp16", "vulkan:0", 1, 128)
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


def test_a_batch_that_the_engine_refuses_is_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = engine(monkeypatch, SimpleNamespace(Model=Model, Batch=Batch, WebRwkvError=WebRwkvError))
    with pytest.raises(BackendError, match=r"cannot make a batch of 9 sequences: web-rwkv panicked: out of memory$"):
        opened.batch(9)


def test_too_old_a_binding_says_how_to_install_another(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = engine(monkeypatch, SimpleNamespace(Model=Model, WebRwkvError=WebRwkvError))
    with pytest.raises(BackendError, match=r"rwkvperf-web-rwkv is older than batches: pip install \./native/web-rwkv"):
        opened.batch(2)
