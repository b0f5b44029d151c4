"""The objects that fixtures give to a test: an item to measure and judge, and an engine to call."""

from __future__ import annotations

import operator
import shlex
from base64 import b64decode
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import pytest

from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.core.errors import OptionError, RwkvPerfError
from pytest_rwkvperf.core.text import did_you_mean
from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.models.model import ModelFile
from pytest_rwkvperf.run.fixtures import PROPERTY, keep_verdict
from pytest_rwkvperf.run.options import OPTIONS
from pytest_rwkvperf.run.pytest_benchmark import name_item, publish
from pytest_rwkvperf.run.selection import chunks_of, combinations, devices
from pytest_rwkvperf.run.verdicts import fails
from pytest_rwkvperf.verdict.judged import junit_properties, to_json
from pytest_rwkvperf.verdict.reasons import describe
from pytest_rwkvperf.worker.parent import SAMPLE_SECONDS, Worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import ExitStack

    import numpy.typing as npt
    from typing_extensions import Self

    from pytest_rwkvperf.core.cases import Question
    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.measure.measurement import Measurement
    from pytest_rwkvperf.run.discovery import FoundEngine
    from pytest_rwkvperf.run.session import Session
    from pytest_rwkvperf.verdict.judged import Judgement

_WRITING = ("save-baseline", "keep-wheels", "report", "report-language", "history")
"""Options that say what a run leaves behind."""


class Perf:
    """One item to measure and to judge: a workload of a case."""

    def __init__(self, session: Session, request: pytest.FixtureRequest, question: Question) -> None:
        self.item = question.item
        self._question = question
        self._session = session
        self._request = request
        self._published = False
        name_item(request, session.selected.id_of(self.item))

    def measure(self) -> Measurement:
        """Samples, throughput with its interval, memory and conditions; measured once per case and run."""
        with clean_failure():
            measurement = self._session.measure(self.item)
            if not self._published:
                publish(self._request, measurement, self._session.selected.id_of(self.item))
                self._published = True
            return measurement

    def check(self) -> Judgement:
        """The verdict against this machine's baseline, or in A/B the old build.

        Fails the test on a regression or an invalid figure, and as `--rwkv-strict` says.
        """
        with clean_failure():
            judged = self._session.judge(self._question)
        if judged.new is not None:
            self.measure()
        keep_verdict(self._request.node, PROPERTY, to_json(judged))
        self._request.node.user_properties += junit_properties(judged)
        if fails(judged, self._session.settings):
            if judged.stored:
                judged = replace(judged, stored=judged.stored + self._session.baseline_location())
            pytest.fail(describe(judged, repeating(self._request)), pytrace=False)
        return judged


def repeating(request: pytest.FixtureRequest) -> str:
    """The command that runs this test again: with the options of this run, and without its files."""
    config = request.config
    given = [(option, config.getoption(option.flag)) for option in OPTIONS if option.name not in _WRITING]
    options = [
        f"{option.flag}={each}"
        for option, value in given
        if value is not None
        for each in (value if isinstance(value, list) else [value])
    ]
    return shlex.join(["pytest", request.node.nodeid, *options])


@contextmanager
def clean_failure() -> Iterator[None]:
    """Fail the test with the sentence of this project's error, which says what to do, and no traceback."""
    try:
        yield
    except RwkvPerfError as error:
        raise pytest.fail.Exception(f"{type(error).__name__}: {error}", pytrace=False) from None


class EngineSession:
    """A model open in a worker process of its own, until `close()`, the end of a `with` block or the test's end."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, which frees its memory and its device; a second call does nothing."""
        if self._is_open:
            self._is_open = False
            self._worker.close()

    def prefill(self, tokens: Iterable[SupportsIndex]) -> None:
        """Advance the state by a prompt.

        Raises:
            OptionError: it is empty, or contains something that is not a token of the vocabulary.
        """
        try:
            prompt = iter(tokens)
        except TypeError:
            raise OptionError(f"{tokens!r} is no prompt; give a list of tokens, or one token to decode()") from None
        self._ask("prefill", tokens=[_token(token) for token in prompt])

    def decode(self, token: SupportsIndex) -> None:
        """Advance the state by one token.

        Raises:
            OptionError: it is not a token of the vocabulary.
        """
        self._ask("decode", token=_token(token))

    def logits(self) -> npt.NDArray[np.float32]:
        """The last token's logits: float32 [vocabulary]."""
        return np.frombuffer(b64decode(self._ask("logits")), dtype="<f4").astype(np.float32)

    def clear(self) -> None:
        """Reset the state."""
        self._ask("clear")

    def _ask(self, do: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        if not self._is_open:
            raise OptionError(f"{do}() on an engine that was closed; open() gives another one")
        return self._worker.request(do, SAMPLE_SECONDS, None, **arguments)


def _token(value: SupportsIndex) -> int:
    """A token as an int: JSON does not take NumPy's and torch's integers."""
    try:
        return int(operator.index(value))
    except TypeError:
        message = f"{value!r} is no token; tokens are integers, from 0 to the vocabulary's size minus one"
        raise OptionError(message) from None


class BackendHandle:
    """An engine, as a test may use it. What it opens is closed at the test's end."""

    def __init__(self, engine: FoundEngine, session: Session, stack: ExitStack) -> None:
        self._engine = engine
        self._session = session
        self._stack = stack

    @property
    def version(self) -> str:
        """The engine's own version."""
        return next(iter(self._engine.versions.values()))

    def devices(self) -> tuple[Device, ...]:
        """The devices that it can run on, best first."""
        return self._engine.devices

    def quants(self) -> tuple[str, ...]:
        """Every quant it knows."""
        return self._engine.backend.quants

    def open(self, model: ModelFile, quant: str, *, device: str | None = None) -> EngineSession:
        """Open a model file in a worker; on the device that the options chose unless one is named.

        Raises:
            OptionError: this is no model file; or the engine does not know the quant, or cannot run on the device.
            RwkvPerfError: the engine cannot load the file.
        """
        if not isinstance(model, ModelFile):
            raise OptionError(
                f"open() takes what the fixtures pth_model, st_model and gguf_model give, not {model!r}; "
                "pass the fixture itself, and choose another file with --rwkv-model"
            )
        backend = self._engine.backend
        if not backend.accepts(quant):
            meant = did_you_mean(quant, backend.quants)
            raise OptionError(f"{backend.name} knows no quant {quant!r}{meant}; allowed: {', '.join(backend.quants)}")
        if backend.file_quant(quant) not in (None, model.quant):
            raise OptionError(f"{model.path} is {model.quant}, not {quant}; make that file first (rwkv_perf does)")
        with self._session.progress.busy(f"{backend.name}: loading {model.path.name}"):
            session = EngineSession(self._worker(model, quant, device))
        self._stack.callback(session.close)
        return session

    def _worker(self, model: ModelFile, quant: str, device: str | None) -> Worker:
        settings, backend = self._session.settings, self._engine.backend
        case = Case(
            backend=backend.name,
            model=self._session.model.limits.name,
            quant=quant,
            device=device or devices(settings, self._engine)[0].id,
            threads=next(iter(settings.threads), fingerprint.physical_cores()),
            chunk=chunks_of(settings, backend)[0],
            settings=combinations(settings, backend.name)[0],
        )
        worker = Worker(python=self._engine.python, environment=backend.environment(case.device))
        try:
            worker.open(self._engine.location, model.path, case)
        except BaseException:
            worker.kill()
            raise
        return worker
