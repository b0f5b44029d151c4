"""Ask the chosen engines, in worker processes, for their versions and devices."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.errors import BackendMissingError, RwkvPerfError
from pytest_rwkvperf.core.software import Software
from pytest_rwkvperf.environments.side import Side
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
    software: Software
    variables: Mapping[str, str | None] = field(default_factory=dict)
    """What its workers get beside what the backend asks for; None unsets a variable."""
    named: str = ""
    """The value of `--rwkv-ab` or `--rwkv-new` that names it; empty for this environment's."""

    @property
    def place(self) -> str:
        """Its name in errors. The interpreter alone does not tell two builds apart."""
        return self.named or self.python


@dataclass(frozen=True, slots=True)
class MissingEngine:
    """An engine that cannot run here, and why, as a sentence that says what to do."""

    name: str
    reason: str


def discover(chosen: Mapping[str, str], *, named: bool) -> list[FoundEngine | MissingEngine]:
    """Ask every chosen backend (name to location) in this environment, all at the same time.

    Raises:
        BackendMissingError: `named` (the user named each backend, not `all`) and one of them cannot run.
    """
    with ThreadPoolExecutor(max_workers=len(chosen)) as pool:
        try:
            answers = list(pool.map(ask, chosen, chosen.values(), repeat(Side(sys.executable))))
        except BaseException:
            end_all()  # Ctrl-C interrupts only this thread; the others wait for their workers
            raise
    for answer in answers:
        if named and isinstance(answer, MissingEngine):
            raise BackendMissingError(f"--rwkv-backend={answer.name}: {answer.reason}")
    return answers


def ask(name: str, location: str, side: Side) -> FoundEngine | MissingEngine:
    """Ask a backend on one side for its versions, devices and software."""
    try:
        backend = registry.load(location)
        environment = {**backend.environment(None), **side.variables}
        with Worker(python=side.python, environment=environment) as worker:
            answer = worker.request("describe", IMPORT_SECONDS, location=location)
    except RwkvPerfError as error:
        return MissingEngine(name, str(error))
    devices = tuple(Device(**device) for device in answer["devices"])
    if not devices:
        return MissingEngine(name, f"{name} is installed and finds no device to run on; {backend.no_device}")
    software = Software.from_json(answer["software"])
    return FoundEngine(backend, location, side.python, answer["versions"], devices, software, side.variables)
