from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.models import derive
from pytest_rwkvperf.models.files import FORMATS, Format
from pytest_rwkvperf.models.shapes import Shape
from pytest_rwkvperf.models.synthetic import SyntheticModel

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.models.streams import Progress

# Two matrices of 134 MB: written whole, even one of them with what it is made from would pass the bound below.
WIDE = SyntheticModel("wide", Shape(layers=2, width=1024, rank_w=64, rank_a=64, rank_v=32, rank_g=128))


@pytest.mark.parametrize("kind", FORMATS)
def test_memory_does_not_grow_with_the_largest_tensor(kind: Format, tmp_path: Path, quiet: Progress) -> None:
    target = tmp_path / f"wide.{kind}"
    tracemalloc.start()
    try:
        derive.write(WIDE, target, kind, "wide", quiet)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    announced = derive.size_in(kind, WIDE.shape, derive.precision_in(kind, WIDE))
    assert 0.98 * announced < target.stat().st_size <= announced
    assert 8 << 20 < peak < 256 << 20


def test_a_pth_keeps_its_sources_precision(quiet: Progress, tmp_path: Path, tiny: Shape) -> None:
    from pytest_rwkvperf.models import st

    model = SyntheticModel("tiny", tiny)
    derive.write(model, tmp_path / "tiny.st", "st", "tiny", quiet)
    assert derive.precision_in("pth", model) == "bf16"
    assert derive.precision_in("pth", st.read(tmp_path / "tiny.st")) == "f16"
    assert derive.precision_in("gguf", model) == "f16"
