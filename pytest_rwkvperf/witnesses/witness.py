"""What a witness is: a few facts for the parent process, and the counting itself for the worker process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.core.engine import Device, Engine, OpenRequest
    from pytest_rwkvperf.core.work import WorkCount

    Repeat = Callable[[Engine], int]
    """One repetition of a workload with the given engine; its nanoseconds. It calls `synchronise` right before what
    counts."""


GENERATION_TOKENS = 16
"""Tokens of a generation that are counted: the state has one size, so each token is the same work."""


class Witness(Protocol):
    """One way to count an engine's work.

    The module must import without the engine: the parent process reads the facts and never calls what is marked
    *worker*, which may use the standard library, NumPy and the engine alone. `WitnessDefaults` has most parts.
    """

    @property
    def name(self) -> str:
        """The word after `--rwkv-witness=`."""

    @property
    def unit(self) -> str:
        """What it counts, in the plural."""

    @property
    def allowance(self) -> float:
        """The share by which counts of the same code may differ; 0 where they are exact."""

    @property
    def command(self) -> tuple[str, ...]:
        """What stands before the interpreter in the worker's command."""

    @property
    def variables(self) -> Mapping[str, str]:
        """What the worker's environment has beside the engine's own."""

    @property
    def shape(self) -> str:
        """The model whose work it counts, as `--rwkv-model` names one; empty for the case's own."""

    def part(self, workload: Workload, chunk: int) -> Workload:
        """What of a workload it counts."""

    def build_variables(self, account: str) -> Mapping[str, str]:
        """Environment variables for a build of the engine whose work the witness can count.

        Empty where the engine as it is will do, by its own account of its build.
        """

    def suits(self, backend: str, device: Device) -> bool:
        """Whether it can count the work of this backend on this device."""

    def absence(self) -> str:
        """Why this machine does not have its instrument, and how to get it; empty where it is there."""

    def watched(self, request: OpenRequest) -> OpenRequest:
        """*worker* The request with what the witness needs from the engine's start."""

    def instrument(self) -> str:
        """*worker* What counts, with the version of what the counts depend on beside the engine."""

    def instruction_set(self) -> str:
        """*worker* What the counted instructions belong to; empty where it does not matter."""

    def count(self, engine: Engine, repeat: Repeat, tokens: int) -> WorkCount:
        """*worker* Count one repetition, which has `tokens` tokens, after some that do not count.

        Raises:
            RwkvPerfError: the instrument refused, or does not fit the engine.
        """


class WitnessDefaults:
    """Defaults for some parts of `Witness`: inherit from this class and override what differs."""

    allowance: float = 0.0
    shape: str = ""
    command: tuple[str, ...] = ()

    @property
    def variables(self) -> Mapping[str, str]:
        """None beside the engine's own."""
        return {}

    def part(self, workload: Workload, chunk: int) -> Workload:
        """One call of a prefill, some tokens of a generation: the rest is the same work. At the workload's depth."""
        most = max(1, chunk // workload.batch) if workload.kind == "prefill" else GENERATION_TOKENS
        return replace(workload, tokens=min(workload.tokens, most))

    def build_variables(self, account: str) -> Mapping[str, str]:  # noqa: ARG002 - the Protocol's signature
        """None: the witness counts the engine as it is."""
        return {}

    def absence(self) -> str:
        """The instrument is part of the engine."""
        return ""

    def watched(self, request: OpenRequest) -> OpenRequest:
        """It needs nothing from the start."""
        return request

    def instruction_set(self) -> str:
        """It counts no instructions."""
        return ""


class CountedEngine:
    """An engine whose timed calls go through `call`, which counts what they do.

    `protocol.run` calls `synchronise` right before its clock starts, so `restart` is called there: it drops what was
    counted before, such as the way to a depth.
    """

    def __init__(
        self, engine: Engine, call: Callable[[Callable[[], object]], object], restart: Callable[[], object]
    ) -> None:
        self._engine, self._call, self._restart = engine, call, restart

    def __getattr__(self, name: str) -> object:
        """Whatever else the engine has."""
        return getattr(self._engine, name)

    def synchronise(self) -> None:
        """Wait for the device, and count from here on."""
        self._engine.synchronise()
        self._restart()

    def prefill(self, tokens: tuple[int, ...]) -> None:
        """As the engine's, counted."""
        self._call(lambda: self._engine.prefill(tokens))

    def decode(self, token: int) -> None:
        """As the engine's, counted."""
        self._call(lambda: self._engine.decode(token))

    def logits(self) -> object:
        """As the engine's, counted: the copy to the host is work too."""
        return self._call(self._engine.logits)

    def as_engine(self) -> Engine:
        """This object as what it stands for."""
        return cast("Engine", self)
