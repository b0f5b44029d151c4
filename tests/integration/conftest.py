"""The real engines on the nano model, in a cache of their own that all these tests share."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import pytest

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.run.discovery import FoundEngine, MissingEngine, discover
from pytest_rwkvperf.worker.parent import Worker
from pytest_rwkvperf.worker.tools import WorkerTools
from tests.conftest import new_cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_rwkvperf.models.model import ModelFile

THREADS = 1
"""More threads of llama.cpp would wait for each other in busy loops, and slow down tests in other processes."""

# Short warm-ups and few samples: these runs test where figures come from and go to, not their precision.
QUICK = """
import pytest
from pytest_rwkvperf.measure import sampling
from pytest_rwkvperf.run import settings

patch = pytest.MonkeyPatch()
patch.setattr(sampling, "WARMUP_SECONDS", 0.05)
patch.setattr(sampling, "WARMUP_LIMIT_SECONDS", 0.5)
patch.setattr(sampling, "PROCESS_SECONDS", 0.05)
patch.setattr(settings, "CHEAP", ())  # tests that want a witness name it
"""
"""A conftest.py for runs with real engines."""


def lacking(reason: str) -> NoReturn:
    """Skip what needs a program of the system; under CI on Linux, where `.ci/run` installs it, fail."""
    (pytest.fail if os.environ.get("CI") and sys.platform == "linux" else pytest.skip)(reason)


def _silent(_sentence: str, _fraction: float) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Engines:
    """Opens engines on the nano model; `cache` is what the user's cache folder is elsewhere."""

    cache: Path
    found: dict[str, FoundEngine]

    def describe(self, name: str) -> FoundEngine:
        """The engine's answer about itself, asked once."""
        if name not in self.found:
            (answer,) = discover({name: registry.BUILT_IN[name]}, named=True)
            assert not isinstance(answer, MissingEngine)
            self.found[name] = answer
        return self.found[name]

    def file(self, name: str, quant: str) -> ModelFile:
        """The file that the engine reads for a quant."""
        backend = self.describe(name).backend
        models = ModelStore(WorkerTools(_silent), _silent, self.cache / "pytest-rwkvperf" / "models")
        return models.file_for(models.resolve("synthetic:nano"), backend.format, backend.file_quant(quant))

    @contextmanager
    def worker(self, name: str, quant: str, *, device: str = "", path: Path | None = None) -> Iterator[Worker]:
        """A worker with the model open; on the engine's best device unless one is named."""
        found = self.describe(name)
        case = Case(name, "nano", quant, device or found.devices[0].id, THREADS, found.backend.standard_chunk)
        with Worker(environment=found.backend.environment(case.device)) as worker:
            worker.open(found.location, path or self.file(name, quant).path, case)
            yield worker


@pytest.fixture(scope="session")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """XDG_CACHE_HOME of the runs that these tests start; its models are gone afterwards."""
    folder = new_cache(tmp_path_factory.mktemp("engines' cache ü"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def engines(engine_cache: Path) -> Engines:
    """The installed engines, opened on demand."""
    return Engines(engine_cache, {})
