"""A tiny model whose ranks all differ, so that no two can be confused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_rwkvperf.models import gguf
from pytest_rwkvperf.models.shapes import Shape, tensor_specs
from pytest_rwkvperf.models.synthetic import SyntheticModel
from pytest_rwkvperf.models.weights import DTYPES, MappedWeights

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.streams import Progress

TINY = Shape(layers=2, width=64, rank_w=16, rank_a=24, rank_v=8, rank_g=40, vocabulary=128)


@pytest.fixture
def tiny() -> Shape:
    return TINY


@pytest.fixture
def model() -> SyntheticModel:
    return SyntheticModel("tiny", TINY)


@pytest.fixture
def small_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a `.gguf` have a vocabulary of a few tokens; the engines' tests use the real one."""
    monkeypatch.setattr(gguf, "world_tokens", lambda: (b"<s>", b"a", b"b"))


@pytest.fixture
def make_weights() -> Callable[[Precision, int], MappedWeights]:
    """Arbitrary weights of the tiny shape: normal numbers that use every bit of their precision."""

    def make(precision: Precision, seed: int = 0) -> MappedWeights:
        random = np.random.default_rng(seed)
        tensors = {
            spec.name: random.standard_normal(spec.shape).astype(DTYPES["f32"]).astype(DTYPES[precision])
            for spec in tensor_specs(TINY)
        }
        return MappedWeights(TINY, precision, tensors)

    return make


@pytest.fixture
def quiet() -> Progress:
    """Progress that is not shown."""
    return lambda _sentence, _fraction: None
