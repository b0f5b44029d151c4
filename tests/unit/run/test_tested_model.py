"""What is known of the tested model before anything is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from pytest_rwkvperf.models import st as st_format
from pytest_rwkvperf.models.shapes import Shape
from pytest_rwkvperf.models.synthetic import SyntheticModel
from pytest_rwkvperf.run.tested_model import TestedModel

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.run.progress import Progress


class Silent:
    """Progress nobody needs."""

    def __call__(self, _sentence: str) -> None:
        pass

    def line(self, _sentence: str) -> None:
        pass


@pytest.mark.parametrize(("vocabulary", "formats"), [(50304, {"pth", "st"}), (65536, {"pth", "st", "gguf"})])
def test_a_small_vocabulary_leaves_out_the_format_that_has_another(
    vocabulary: int, formats: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny = Shape(layers=2, width=64, rank_w=16, rank_a=24, rank_v=8, rank_g=40, vocabulary=vocabulary)
    st_format.write(tmp_path / "pile.st", SyntheticModel("pile", tiny), lambda *_: None, "")
    limits = TestedModel(str(tmp_path / "pile.st"), cast("Progress", Silent())).limits
    assert limits.formats == formats
    assert [*limits.reasons] == sorted({"gguf"} - formats)
    assert all("50304 tokens cannot become a .gguf" in reason for reason in limits.reasons.values())
