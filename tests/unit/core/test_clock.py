"""The process's own clocks go on where a test freezes those of `time`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import clock

if TYPE_CHECKING:
    import pytest


def test_a_frozen_time_module_freezes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    started, now = time.monotonic(), time.time()
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert started <= clock.monotonic() < started + 60
    assert now <= clock.time_of_day() < now + 60
    held = [value for value in vars(clock).values() if value is clock._Real.monotonic or value is clock._Real.time]
    assert held == [], "such libraries replace what a module has as an attribute"
