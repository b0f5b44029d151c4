"""Ask the chosen engines, in worker processes, for their versions and devices."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.errors import BackendMissingError, RwkvPerfError
from pytest_rwkvperf.worker.parent import IMPORT_SECONDS, Worker, end_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.core.engine import Backend


@dataclass(frozen=True, slots=True)
class FoundEngine:
    """An installed engine; `python` is the interpreter that it runs under, `devices` are best first."""

    backend: Backend
    location: str
    python: str
    versions: Mapping[str, str]
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class MissingEngine:
    """An engine that cannot run here, and why, as a sentence that says what to do."""

    name: str
    reason: str


def discover(
    chosen: Mapping[str, str], *, by_hand: bool, python: str = sys.executable
) -> list[FoundEngine | MissingEngine]:
    """Ask every chosen backend (name to location) for its versions and devices, all at the same time.

    Raises:
        BackendMissingError: `by_hand` (the user named each backend) and one of them cannot run.
    """
    with ThreadPoolExecutor(max_workers=len(chosen)) as pool:
        try:
            answers = list(pool.map(_ask, chosen, chosen.values(), repeat(python)))
        except BaseException:
            end_all()  # Ctrl-C interrupts only this thread; the others wait for their workers
            raise
    for answer in answers:
        if by_hand and isinstance(answer, MissingEngine):
            raise BackendMissingError(f"--rwkv-backend={answer.name}: {answer.reason}")
    return answers


def _ask(name: str, location: str, python: str) -> FoundEngine | MissingEngine:
    try:
        backend = registry.load(location)
        with Worker(python=python, environment=backend.environment(None)) as worker:
            answer = worker.request("describe", IMPORT_SECONDS, location=location)
    except RwkvPerfError as error:
        return MissingEngine(name, str(error))
    devices = tuple(Device(**device) for device in answer["devices"])
    if not devices:
        return MissingEngine(name, f"{name} is installed and finds no device to run on; {backend.no_device}")
    return FoundEngine(backend, location, python, answer["versions"], devices)
