"""Each fault happens to a real process; its own tests say so in time, the others pass, and nothing is left behind."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults.catalog import FAULTS, Fault, play, shortcomings, unkept

if TYPE_CHECKING:
    from tests.faults.scene import Seen, Stage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the faults are Linux's")


@pytest.fixture(scope="module")
def played(stage: Stage) -> tuple[Seen, dict[str, Fault]]:
    """One run that meets every fault that can happen here."""
    return play(stage(), [fault for fault in FAULTS if not fault.missing])


def test_the_run_goes_on_and_leaves_nothing_behind(played: tuple[Seen, dict[str, Fault]]) -> None:
    seen, _ = played
    assert shortcomings(seen) == [], seen.text


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.row}-{fault.name.replace(' ', '-')}")
def test_a_fault_is_told_in_time_by_its_own_tests(played: tuple[Seen, dict[str, Fault]], fault: Fault) -> None:
    if reason := fault.missing:
        pytest.skip(reason)
    seen, cast = played
    (quant,) = (quant for quant, one in cast.items() if one is fault)
    assert unkept(fault, quant, seen) == []
