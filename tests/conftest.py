"""Runs of pytest with the scripted engine of `scripted/`, which they find as an installed distribution's."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import scipy.optimize
import scipy.special  # noqa: F401 - loaded early for the reason below
from hypothesis import HealthCheck, settings

# Loaded before pytester takes its snapshot of sys.modules, which it restores after each run: NumPy and SciPy must not
# be imported twice in one process.
import pytest_rwkvperf.run.finish
import pytest_rwkvperf.run.handles
import pytest_rwkvperf.run.session
import pytest_rwkvperf.run.terminal  # noqa: F401 - as those above
from pytest_rwkvperf.machine import usage
from pytest_rwkvperf.measure import probes

with suppress(ImportError):
    # Nor PostgreSQL's driver: its compiled half would still raise the error classes of the first import.
    import psycopg  # noqa: F401

# A slow example is no failure on a loaded machine. Hypothesis assumes that by itself only under CI.
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPTED = Path(__file__).with_name("scripted")
CHECKOUT = Path(__file__).parents[1]
ENGINE_MODULES = ("torch", "llama_cpp", "rwkvperf_web_rwkv")
# Other plugins: they take more than a second of each run, and randomly would change the order of tests.
QUIET = ("-p", "no:hypothesispytest", "-p", "no:anyio", "-p", "no:cacheprovider", "-p", "no:randomly")


_SHARED = "TESTS_SHARED_CACHE"
_SHARED_PARTS = ("models", "oracle", "parity", "locks")


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that the caches of all processes of this run share."""
    if _SHARED not in os.environ:  # else this is a process of pytest-xdist
        os.environ[_SHARED] = tempfile.mkdtemp(prefix="shared cache ü ")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(_SHARED)))


def new_cache(folder: Path) -> Path:
    """Make a folder for XDG_CACHE_HOME that shares models and logits with all tests, by links (on POSIX).

    The locks of devices are not shared, so that tests in several processes need not wait for each other.
    """
    (folder / "pytest-rwkvperf").mkdir(parents=True)
    for part in _SHARED_PARTS if os.name == "posix" else ():
        shared = Path(os.environ[_SHARED], part)
        shared.mkdir(exist_ok=True)
        (folder / "pytest-rwkvperf" / part).symlink_to(shared)
    return folder


def pytest_collection() -> None:
    """Turn garbage collection off while modules and tests are loaded: nearly all objects stay to the end."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Turn it on again, and exclude the more than a hundred thousand objects that were loaded."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for the tests of a process, away from the user's own."""
    folder = new_cache(tmp_path_factory.mktemp("cache"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def no_engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that, on the path, makes every real engine look like one that is not installed."""
    folder = tmp_path_factory.mktemp("no_engines")
    for name in ENGINE_MODULES:
        text = f"raise ModuleNotFoundError(\"No module named '{name}'\")\n"
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def scripted_environment(monkeypatch: pytest.MonkeyPatch, cache_home: Path, no_engines: Path) -> pytest.MonkeyPatch:
    """Let processes find the scripted engine and no other; set its variables SCRIPTED_* with this fixture's value."""
    for name in [*os.environ]:
        # Under CI pytest does not shorten its summary; what these runs print must not depend on that.
        if name.startswith(("SCRIPTED_", "PYTEST_")) or name in {"CI", "BUILD_NUMBER"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [CHECKOUT, SCRIPTED, no_engines])))
    monkeypatch.syspath_prepend(SCRIPTED)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join([*QUIET, "-p", "scripted_machine"]))
    # Other load on the machine would widen the bounds of every verdict.
    monkeypatch.setattr(usage, "crowding", lambda *_: 0.0)
    monkeypatch.setattr(probes, "Worker", lambda **_: nullcontext(SteadyProbe()))
    return monkeypatch


class SteadyProbe:
    """Replaces a probe process: every probe takes the same time."""

    def request(self, name: str, *_: object, **__: object) -> int | str:
        """Answer as `worker.child` does."""
        return "steady" if name == "probe_version" else 70_000


@dataclass
class Runs:
    """Runs pytest in a folder of its own, with the scripted engine; in this process unless `apart`."""

    pytester: pytest.Pytester
    environment: pytest.MonkeyPatch
    options: tuple[str, ...] = ("--rwkv-workload=pp16", "--rwkv-budget=0.01", "--rwkv-tolerance=40%")

    def __call__(self, *arguments: str, apart: bool = False, **script: str) -> pytest.RunResult:
        """Run with exactly these arguments; `script` is what SCRIPTED_* says, in small letters."""
        with self.environment.context() as patch:
            for name, value in script.items():
                patch.setenv(f"SCRIPTED_{name.upper()}", value)
            if apart:
                return self.pytester.runpytest_subprocess(*QUIET, *arguments, timeout=600)
            return self.pytester.runpytest_inprocess(*QUIET, *arguments)

    def measuring(self, *arguments: str, apart: bool = False, **script: str) -> pytest.RunResult:
        """Measure one small workload of the scripted engine; of two values of one option the later one counts."""
        own = ("--rwkv-backend=scripted", "--rwkv-quant=fp16", *self.options)
        return self(*own, *arguments, apart=apart, **script)


@pytest.fixture
def runs(pytester: pytest.Pytester, scripted_environment: pytest.MonkeyPatch) -> Runs:
    """Runs pytest with the arguments that it is called with."""
    return Runs(pytester, scripted_environment)
