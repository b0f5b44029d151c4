"""Witnesses by name. A new one needs a module in this folder and a line here; `witness.py` says what it offers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pytest_rwkvperf.witnesses.witness import Witness

WITNESSES = {
    "operations": "pytest_rwkvperf.witnesses.operations",
    "graph": "pytest_rwkvperf.witnesses.graph",
    "kernels": "pytest_rwkvperf.witnesses.kernels",
    "instructions": "pytest_rwkvperf.witnesses.instructions",
}
"""Each one's module, whose `WITNESS` it is."""

CHEAP = ("operations", "graph", "kernels")
"""Those that are exact and take seconds: the ones of `--rwkv-witness=auto`."""


def load(name: str) -> Witness:
    """The witness of a name in WITNESSES."""
    return cast("Witness", import_module(WITNESSES[name]).WITNESS)
