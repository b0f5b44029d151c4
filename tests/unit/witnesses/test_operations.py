"""What is counted of torch's operations, without torch."""

from __future__ import annotations

import gc

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.work import Amount, WorkCount
from pytest_rwkvperf.witnesses.operations import WITNESS, Tally


class Storage:
    """Memory of a result."""


def test_the_peak_is_of_what_was_held_at_one_time() -> None:
    """Memory that was freed does not count in what follows."""
    tally = Tally()
    first, second = Storage(), Storage()
    tally.calls.update(["mm", "mm", "add"])
    tally.allocate("mm", first, 100)
    tally.allocate("mm", second, 50)
    del second
    gc.collect()
    tally.allocate("add", Storage(), 20)
    assert tally.count(4) == WorkCount(4, {"add": Amount(1, 20), "mm": Amount(2, 150)}, peak_bytes=150)
    del first


def test_what_was_made_before_a_restart_is_forgotten() -> None:
    """Its end must not be taken from what was made since."""
    tally = Tally()
    before = Storage()
    tally.allocate("zeros", before, 1000)
    tally.restart()
    kept = Storage()
    tally.allocate("mm", kept, 10)
    del before
    gc.collect()
    assert (tally.live, tally.peak) == (10, 10)
    assert tally.count(1).operators == {}
    del kept


def test_a_long_prefill_is_counted_by_its_beginning() -> None:
    """The package loops over tokens, and the mode sees every operation."""
    assert str(WITNESS.part(Workload("prefill", 512), 512)) == "pp128"
    assert str(WITNESS.part(Workload("prefill", 512), 64)) == "pp64"
    assert str(WITNESS.part(Workload("generation", 128), 64)) == "tg16"
