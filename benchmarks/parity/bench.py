"""What the scripts of this folder share: a temporary cache, and an engine's answers for a file."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import psutil

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.oracle import bounds, expected
from pytest_rwkvperf.oracle.agreement import Deep, Short
from pytest_rwkvperf.worker.parent import IMPORT_SECONDS, SAMPLE_SECONDS, Worker
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_rwkvperf.core.engine import Backend
    from pytest_rwkvperf.models.model import Model, ModelFile

PYTHON = sys.executable
REAL_BACKENDS = tuple(name for name in registry.BUILT_IN if name != "reference")


def silent(_sentence: str, _fraction: float) -> None:
    """Progress that is not shown."""


TOOLS = WorkerTools(silent)


@contextmanager
def temporary_cache() -> Iterator[Path]:
    """A temporary cache folder for this process and its workers."""
    with tempfile.TemporaryDirectory(prefix="rwkvperf-parity-") as folder:
        before = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = before


@dataclass(frozen=True, slots=True)
class Engine:
    """A backend as this machine has it, on its best device."""

    backend: Backend
    location: str
    device: Device
    versions: Mapping[str, str]

    @property
    def name(self) -> str:
        """The backend's name."""
        return self.backend.name


@cache
def engine(name: str, device: str = "") -> Engine:
    """A built-in backend on its best device, or on the named one."""
    location = registry.BUILT_IN[name]
    backend = registry.load(location)
    with Worker(environment=backend.environment(None)) as worker:
        described = worker.request("describe", IMPORT_SECONDS, location=location)
    chosen = next(Device(**entry) for entry in described["devices"] if device in {"", entry["id"]})
    return Engine(backend, location, chosen, described["versions"])


def model(shape: str, seed: int) -> Model:
    """A synthetic model."""
    return ModelStore(TOOLS, silent).resolve(f"synthetic:{shape}:{seed}")


def file_of(model: Model, engine: Engine, quant: str) -> ModelFile:
    """The cached file that an engine reads."""
    return ModelStore(TOOLS, silent).file_for(model, engine.backend.format, engine.backend.file_quant(quant))


def right_answers(file: ModelFile, engine: Engine, quant: str, *, deep: bool) -> list[Path]:
    """The oracle's logits for a file and a quant of an engine."""
    return expected.logits_files(file, engine.backend.emulation(quant), deep=deep, solver=TOOLS)


def case(engine: Engine, quant: str) -> Case:
    """An engine's case with a run's default settings."""
    threads = psutil.cpu_count(logical=False) or 1
    return Case(engine.name, "parity", quant, engine.device.id, threads, engine.backend.standard_chunk)


def answers(engine: Engine, quant: str, path: Path, wanted: Sequence[Path]) -> tuple[Short, Deep | None]:
    """Run the parity check in a worker, as a measurement does."""
    noise = bounds.bound_for(engine.name, quant, engine.device).relative_l2
    with Worker(environment=engine.backend.environment(engine.device.id)) as worker:
        worker.open(engine.location, path, case(engine, quant))
        results = worker.request("parity", SAMPLE_SECONDS, expected=[str(path) for path in wanted], noise=noise)
    deep = msgspec.convert(results["deep"], type=Deep) if results["deep"] else None
    return msgspec.convert(results["short"], type=Short), deep


def problem(engine: Engine, quant: str, short: Short, deep: Deep | None) -> str:
    """What is wrong with the answers; empty when they are within the bound."""
    bound = bounds.bound_for(engine.name, quant, engine.device)
    return bounds.broken_short(short, bound) or (bounds.broken_deep(deep, bound) if deep else "")


def conditions() -> dict[str, Any]:
    """Where and when figures were measured."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "load_1min": round(psutil.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def device_facts(engine: Engine) -> dict[str, Any]:
    """An engine's device and versions, for the record."""
    return {"device": asdict(engine.device), "versions": dict(engine.versions)}
