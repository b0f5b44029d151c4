"""The software of the machine that reports show: what the driver tells of itself, and nothing where there is none."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.machine import nvml, system
from tests.unit.machine.recorded import Recorded

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("library", "drivers"),
    [
        (Recorded(), {"NVIDIA driver": Recorded().static["driver"], "CUDA (driver)": "13.0"}),
        (
            Recorded(lacking=("nvmlSystemGetCudaDriverVersion",)),
            {"NVIDIA driver": Recorded().static["driver"]},
        ),
        (None, {}),
    ],
    ids=["driver", "without CUDA's version", "no driver"],
)
def test_drivers_are_named_as_far_as_they_tell(
    library: Recorded | None, drivers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def opened() -> Iterator[Recorded | None]:
        yield library

    monkeypatch.setattr(nvml, "opened", opened)
    assert system.read().drivers == drivers
