"""Peak memory and conditions, of this process and this machine."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psutil
import pytest

from pytest_rwkvperf.machine import usage
from pytest_rwkvperf.machine.conditions import Watch
from pytest_rwkvperf.machine.memory import peak_rss_bytes

if TYPE_CHECKING:
    from pathlib import Path

MIB = 2**20

ALLOCATING = f"""
from pytest_rwkvperf.machine.memory import peak_rss_bytes
before = peak_rss_bytes()
block = bytearray(b"x") * (64 * {MIB})
during = peak_rss_bytes()
del block
print(before, during, peak_rss_bytes())
"""


def test_a_peak_grows_with_an_allocation_and_stays_when_it_is_freed() -> None:
    done = subprocess.run([sys.executable, "-c", ALLOCATING], capture_output=True, text=True, timeout=300, check=True)
    before, during, after = map(int, done.stdout.split())
    assert 60 * MIB < during - before < 80 * MIB
    assert after > during - MIB  # the kernel adds its counters up per processor, and is off by some pages


def test_a_peak_is_in_bytes_and_no_less_than_what_is_used_now() -> None:
    now = psutil.Process().memory_info().rss
    assert now <= peak_rss_bytes() < 50 * now


def test_a_childs_peak_is_its_own() -> None:
    """Of a small interpreter started by a large process; ru_maxrss would carry the parent's over."""
    block = bytearray(b"x") * (96 * MIB)
    script = "from pytest_rwkvperf.machine.memory import peak_rss_bytes; print(peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert len(block) == 96 * MIB
    assert 2 * MIB < int(done.stdout) < 60 * MIB


@pytest.fixture
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counters of crowding have tests of their own."""
    monkeypatch.setattr(usage, "now", lambda: usage.Usage(0.0, 0.0, 0.0))


class Counters(SimpleNamespace):
    """What psutil.cpu_times gives: fields that can be summed."""

    def __iter__(self) -> object:
        return iter(vars(self).values())


@pytest.mark.usefixtures("nobody_else")
def test_conditions_are_the_load_before_and_the_share_of_time_stolen(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([Counters(user=10.0, idle=80.0, steal=10.0), Counters(user=60.0, idle=105.0, steal=35.0)])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(readings))
    monkeypatch.setattr(psutil, "getloadavg", lambda: (1.234, 9.0, 9.0))
    watch = Watch()
    monkeypatch.setattr(psutil, "getloadavg", lambda: (7.0, 9.0, 9.0))
    found = watch.conditions()
    assert (found.load_before, found.steal, found.load_after) == (1.23, 0.25, 7.0)


@pytest.mark.parametrize(("told", "quota"), [("150000 100000", 1.5), ("max 100000", None), ("", None), ("odd", None)])
def test_what_a_container_may_use(tmp_path: Path, told: str, quota: float | None) -> None:
    group = tmp_path / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text(told)
    (group / "memory.max").write_text("2147483648" if quota else "max")
    governor = tmp_path / "devices/system/cpu/cpu0/cpufreq/scaling_governor"
    governor.parent.mkdir(parents=True)
    governor.write_text("powersave\n")
    found = Watch(system=tmp_path).conditions()
    assert (found.quota_cpus, found.memory_limit_bytes, found.governor) == (
        quota,
        2**31 if quota else None,
        "powersave",
    )


@pytest.mark.usefixtures("nobody_else")
def test_where_nothing_is_stolen_or_no_time_passes_the_share_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([Counters(user=1.0), Counters(user=3.0), Counters(user=3.0, steal=2.0)])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(readings))
    assert Watch().conditions().steal == 0
    same = Counters(user=3.0, steal=2.0)
    monkeypatch.setattr(psutil, "cpu_times", lambda: same)
    assert Watch().conditions().steal == 0
