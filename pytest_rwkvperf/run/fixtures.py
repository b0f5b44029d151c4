"""The fixtures. Every pytest run of the environment imports this module, so it imports nothing heavy."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn

import pytest

from pytest_rwkvperf.backends.registry import IN_ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.model import ModelFile
    from pytest_rwkvperf.run.handles import BackendHandle, Perf
    from pytest_rwkvperf.run.invariants import InvariantCheck
    from pytest_rwkvperf.run.session import Session

BACKENDS = {"rwkv_pip": "rwkv", "llama_cpp": "llama-cpp", "web_rwkv": "web-rwkv"}
"""Backend fixtures and the backends they restrict a test to."""

MEASURING = ("rwkv_perf", "rwkv_invariant")
"""Fixtures that are parametrized with what they measure."""

FIXTURES = (*BACKENDS, *MEASURING, "pth_model", "gguf_model", "st_model")
"""A test that asks for none of these is not ours."""

SESSION: pytest.StashKey[Session] = pytest.StashKey()
"""On the config, while measuring is on."""

PROPERTY = "rwkvperf"
"""The name under which values travel between an xdist controller and its workers."""

INVARIANT_PROPERTY = "rwkvperf-invariant"
"""As PROPERTY, for the verdict on an invariant."""

VERDICTS: pytest.StashKey[dict[str, list[str]]] = pytest.StashKey()
"""On a test, while it runs: its verdicts as JSON under PROPERTY or INVARIANT_PROPERTY, which its report takes."""

OFF = f"measuring is off; turn it on with --rwkv-backend=all (or {', '.join(IN_ALL)})"


def keep_verdict(item: pytest.Item, name: str, verdict: str) -> None:
    """Add a verdict to those of a test that is running."""
    item.stash.setdefault(VERDICTS, {}).setdefault(name, []).append(verdict)


@pytest.fixture
def rwkv_perf(request: pytest.FixtureRequest) -> Perf:
    """Measures and judges one workload of one case; a test that asks for it runs once for each."""
    session = _measuring_session(request)
    from pytest_rwkvperf.run.handles import Perf

    return Perf(session, request, session.selected.by_test[request.node.nodeid])


@pytest.fixture
def rwkv_invariant(request: pytest.FixtureRequest) -> InvariantCheck:
    """Judges one invariant of one case, without a baseline; a test that asks for it runs once for each."""
    session = _measuring_session(request)
    from pytest_rwkvperf.run.invariants import InvariantCheck

    return InvariantCheck(session, request, session.selected.invariants_by_test[request.node.nodeid])


def _session(request: pytest.FixtureRequest) -> Session:
    session = request.config.stash.get(SESSION, None)
    if session is None:
        pytest.skip(OFF)
    return session


def _measuring_session(request: pytest.FixtureRequest) -> Session:
    """The session of a test whose parameter is what it measures; skips or fails the test of a missing engine."""
    session = _session(request)
    from pytest_rwkvperf.run.discovery import MissingEngine

    if isinstance(request.param, MissingEngine):
        _skip_or_fail(session, request.param.reason)
    return session


def _skip_or_fail(session: Session, reason: str) -> NoReturn:
    """Skip the test; under `--rwkv-strict=skip` fail it."""
    if "skip" in session.settings.strict:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _backend(request: pytest.FixtureRequest, name: str) -> Iterator[BackendHandle]:
    session = _session(request)
    from pytest_rwkvperf.run.discovery import MissingEngine
    from pytest_rwkvperf.run.handles import BackendHandle

    engine = session.engines.get(name)
    if isinstance(engine, MissingEngine):
        _skip_or_fail(session, engine.reason)
    with ExitStack() as stack:
        yield BackendHandle(engine, session, stack)


@pytest.fixture
def rwkv_pip(request: pytest.FixtureRequest) -> Iterator[BackendHandle]:
    """The `rwkv` pip package."""
    yield from _backend(request, "rwkv")


@pytest.fixture
def llama_cpp(request: pytest.FixtureRequest) -> Iterator[BackendHandle]:
    """llama.cpp through llama-cpp-python."""
    yield from _backend(request, "llama-cpp")


@pytest.fixture
def web_rwkv(request: pytest.FixtureRequest) -> Iterator[BackendHandle]:
    """web-rwkv through this project's binding."""
    yield from _backend(request, "web-rwkv")


def _model(request: pytest.FixtureRequest, format: Format) -> ModelFile:
    session = _session(request)
    from pytest_rwkvperf.run.handles import clean_failure

    with clean_failure(), session.progress.busy(f"preparing the model as .{format}"):
        return session.model.file(format)


@pytest.fixture
def pth_model(request: pytest.FixtureRequest) -> ModelFile:
    """The model of `--rwkv-model` as a `.pth` file."""
    return _model(request, "pth")


@pytest.fixture
def gguf_model(request: pytest.FixtureRequest) -> ModelFile:
    """The model of `--rwkv-model` as a `.gguf` file."""
    return _model(request, "gguf")


@pytest.fixture
def st_model(request: pytest.FixtureRequest) -> ModelFile:
    """The model of `--rwkv-model` as a `.st` file."""
    return _model(request, "st")
