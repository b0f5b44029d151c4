"""The fixtures. Importing this module costs nothing: every pytest run in the environment does."""

from __future__ import annotations

import operator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

import pytest

from pytest_rwkvperf.core.errors import OptionError, RwkvPerfError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    import numpy.typing as npt

    from pytest_rwkvperf.core.cases import Item
    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.measure.measurement import Measurement
    from pytest_rwkvperf.models.model import ModelFile
    from pytest_rwkvperf.run.discovery import Found
    from pytest_rwkvperf.run.session import Session
    from pytest_rwkvperf.verdict.judged import Judgement
    from pytest_rwkvperf.worker.parent import Worker

BACKENDS = {"rwkv_pip": "rwkv", "llama_cpp": "llama-cpp", "web_rwkv": "web-rwkv"}
"""Backend fixtures and the backends they restrict a test to."""

FIXTURES = (*BACKENDS, "rwkv_perf", "pth_model", "gguf_model", "st_model")
"""A test that asks for none of these is not ours."""

SESSION: pytest.StashKey[Session] = pytest.StashKey()
"""On the config, while measuring is on."""

PROPERTY = "rwkvperf"
"""The user property under which a verdict travels with its test's report: to an xdist controller, and into JUnit."""

OFF = "measuring is off; turn it on with --rwkv-backend=all (or rwkv, llama-cpp, web-rwkv)"


class Perf:
    """One item to measure and to judge: a workload of a case."""

    def __init__(self, session: Session, request: pytest.FixtureRequest, item: Item, tolerance: float | None) -> None:
        self.item = item
        self._session = session
        self._request = request
        self._tolerance = tolerance
        self._published = False

    def measure(self) -> Measurement:
        """Samples, throughput with its interval, memory and conditions; measured once per case and session."""
        with _clean_failure():
            taken = self._session.measure(self.item)
            if not self._published:
                from pytest_rwkvperf.run.benchmarked import publish

                publish(self._request, taken)
                self._published = True
            return taken

    def check(self) -> Judgement:
        """The verdict against this machine's baseline; fails the test on a regression or an invalid figure."""
        from pytest_rwkvperf.verdict.judged import junit_properties, to_json
        from pytest_rwkvperf.verdict.reasons import describe

        with _clean_failure():
            verdict = self._session.judge(self.item, self._tolerance)
        if verdict.new is not None:
            self.measure()
        self._request.node.user_properties += [(PROPERTY, to_json(verdict)), *junit_properties(verdict)]
        if self._session.fails(verdict):
            pytest.fail(describe(verdict), pytrace=False)
        return verdict


@contextmanager
def _clean_failure() -> Iterator[None]:
    """This project's errors fail a test with their sentence, which says what to do; a traceback would only hide it."""
    try:
        yield
    except RwkvPerfError as error:
        raise pytest.fail.Exception(f"{type(error).__name__}: {error}", pytrace=False) from None


class EngineSession:
    """A model open in a worker process of its own."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def prefill(self, tokens: Iterable[SupportsIndex]) -> None:
        """Advance the state by a prompt.

        Raises:
            OptionError: it is empty, or holds what is no token of the vocabulary.
        """
        try:
            prompt = iter(tokens)
        except TypeError:
            raise OptionError(f"{tokens!r} is no prompt; give a list of tokens, or one token to decode()") from None
        self._ask("prefill", tokens=[_token(one) for one in prompt])

    def decode(self, token: SupportsIndex) -> None:
        """Advance the state by one token.

        Raises:
            OptionError: it is none of the vocabulary.
        """
        self._ask("decode", token=_token(token))

    def logits(self) -> npt.NDArray[np.float32]:
        """The last token's logits: float32 [vocabulary]."""
        from base64 import b64decode

        import numpy as np

        return np.frombuffer(b64decode(self._ask("logits")), dtype="<f4").astype(np.float32)

    def clear(self) -> None:
        """Reset the state."""
        self._ask("clear")

    def _ask(self, do: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        from pytest_rwkvperf.worker.parent import SAMPLE_SECONDS

        return self._worker.request(do, SAMPLE_SECONDS, None, **arguments)


def _token(value: SupportsIndex) -> int:
    """A token as the worker's pipe takes it: NumPy's and torch's integers are no numbers in JSON."""
    try:
        return int(operator.index(value))
    except TypeError:
        message = f"{value!r} is no token; tokens are integers, from 0 to the vocabulary's size minus one"
        raise OptionError(message) from None


class BackendHandle:
    """An engine, as a test may use it; its sessions end with the test."""

    def __init__(self, found: Found, session: Session, stack: ExitStack) -> None:
        self._found = found
        self._session = session
        self._stack = stack

    @property
    def version(self) -> str:
        """The engine's own version."""
        return next(iter(self._found.versions.values()))

    def devices(self) -> tuple[Device, ...]:
        """Where it can run, best first."""
        return self._found.devices

    def quants(self) -> tuple[str, ...]:
        """Every quant it knows."""
        return self._found.backend.quants

    def open(self, model: ModelFile, quant: str, *, device: str | None = None) -> EngineSession:
        """Open a model file in a worker; on the device that the options chose unless one is named.

        Raises:
            OptionError: this is no model file; or the engine does not know the quant, or cannot run on the device.
            RwkvPerfError: the engine cannot load the file.
        """
        from pytest_rwkvperf.models.model import ModelFile

        if not isinstance(model, ModelFile):
            raise OptionError(
                f"open() takes what the fixtures pth_model, st_model and gguf_model give, not {model!r}; "
                "pass the fixture itself, and choose another file with --rwkv-model"
            )
        return EngineSession(self._stack.enter_context(self._session.open_worker(self._found, model, quant, device)))


@pytest.fixture
def rwkv_perf(request: pytest.FixtureRequest) -> Perf:
    """Measures and judges one workload of one case; a test that asks for it runs once for each."""
    session = _session(request)
    from pytest_rwkvperf.run.discovery import Missing
    from pytest_rwkvperf.run.selection import read_marker

    if isinstance(request.param, Missing):
        _absent(session, request.param.reason)
    asked = read_marker(request.node.get_closest_marker("rwkv"))
    return Perf(session, request, request.param, asked.tolerance)


def _session(request: pytest.FixtureRequest) -> Session:
    session = request.config.stash.get(SESSION, None)
    if session is None:
        pytest.skip(OFF)
    return session


def _absent(session: Session, reason: str) -> NoReturn:
    """A skip, or under `--rwkv-strict=skip` a failure."""
    if "skip" in session.settings.strict:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _backend(request: pytest.FixtureRequest, name: str) -> Iterator[BackendHandle]:
    session = _session(request)
    from pytest_rwkvperf.run.discovery import Missing

    engine = session.engine(name)
    if isinstance(engine, Missing):
        _absent(session, engine.reason)
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


def _model(request: pytest.FixtureRequest, format: Any) -> ModelFile:  # noqa: A002, ANN401 - the design's word
    with _clean_failure():
        return _session(request).file(format)


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
