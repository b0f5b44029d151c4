"""What others took of the processor: counted right, and only where it leaves too little."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.machine import usage
from pytest_rwkvperf.machine.usage import Usage, crowding

# A fifth of a second of the processor; the system tells it of each process in hundredths, cut off.
SPENT = 0.15
SPIN = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"


@pytest.mark.parametrize(
    ("others", "cores", "threads", "share"),
    [
        (0.0, 2, 2, 0.0),
        (0.5, 2, 2, 0.25),  # of 2 x 10 s others used 5: 1.5 cores are left for two threads
        (2.0, 2, 2, 1.0),
        (0.5, 4, 2, 0.0),  # it fits beside two threads
        (3.0, 4, 2, 0.5),
    ],
)
def test_only_work_beyond_the_free_cores_counts(others: float, cores: int, threads: int, share: float) -> None:
    before, after = Usage(100.0, 50.0, 0.0), Usage(100.0 + 10 * others + 7, 57.0, 10.0)
    assert crowding(before, after, cores, threads) == pytest.approx(share)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e3), st.integers(1, 256), st.integers(1, 256))
def test_crowding_is_between_0_and_1(busy: float, own: float, seconds: float, cores: int, threads: int) -> None:
    assert 0 <= crowding(Usage(0, 0, 0), Usage(busy, own, seconds), cores, threads) <= 1


def test_what_this_process_started_is_its_own() -> None:
    before = usage.now()
    subprocess.run([sys.executable, "-c", SPIN], check=True)
    assert usage.now().own - before.own >= SPENT


def test_a_live_child_is_its_own_too() -> None:
    before = usage.now()
    with subprocess.Popen([sys.executable, "-c", SPIN + "\nprint(flush=True)\ninput()"], stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert usage.now().own - before.own >= SPENT
        child.communicate(b"\n")


def test_other_processes_work_is_foreign() -> None:
    """The machine's counter moves by all of it; in a quiet moment by what was started here, and nobody else's."""
    before = usage.now()
    subprocess.run([sys.executable, "-c", SPIN], check=True)
    assert usage.now().busy - before.busy >= SPENT
