"""A tiny model whose ranks all differ, so that no two can be confused."""

from __future__ import annotations

import pytest

from pytest_rwkvperf.models.shapes import Shape
from pytest_rwkvperf.models.synthetic import SyntheticModel


@pytest.fixture
def model() -> SyntheticModel:
    return SyntheticModel("tiny", Shape(3, 128, rank_w=16, rank_a=24, rank_v=8, rank_g=40, vocabulary=300))
