"""Cause every fault of the catalog: its own tests fail in time with its message, the others pass, nothing is left."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults.catalog import FAULTS, Fault, broken_fault_promises, broken_promises, run_with_faults

if TYPE_CHECKING:
    from tests.faults.sandbox import ObservedRun, SandboxFactory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the faults are Linux's")


@pytest.fixture(scope="module")
def faulty_run(new_sandbox: SandboxFactory) -> tuple[ObservedRun, dict[str, Fault]]:
    """One run with every fault that can be caused here."""
    return run_with_faults(new_sandbox(), [fault for fault in FAULTS if not fault.missing])


def test_the_run_goes_on_and_leaves_nothing_behind(faulty_run: tuple[ObservedRun, dict[str, Fault]]) -> None:
    result, _ = faulty_run
    assert broken_promises(result) == [], result.text


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.row}-{fault.name.replace(' ', '-')}")
def test_a_fault_fails_its_own_tests_in_time(faulty_run: tuple[ObservedRun, dict[str, Fault]], fault: Fault) -> None:
    if reason := fault.missing:
        pytest.skip(reason)
    result, fault_by_quant = faulty_run
    (quant,) = (quant for quant, item in fault_by_quant.items() if item is fault)
    assert broken_fault_promises(fault, quant, result) == []
