"""What holds for every RWKV-7 engine on any machine, judged within the run (`--rwkv-suite=invariants`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_rwkvperf.run.invariants import InvariantCheck


def test_invariant(rwkv_invariant: InvariantCheck) -> None:
    """Fails on a broken invariant and on an invalid figure."""
    rwkv_invariant.check()
