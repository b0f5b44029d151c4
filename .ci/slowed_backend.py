"""A backend as a third party would add one: llama.cpp, made slower by the factor in the variable GATE_SLOWDOWN."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.backends.llama_cpp import LlamaCpp, LlamaCppEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_rwkvperf.core.engine import Device, OpenRequest

FACTOR = float(os.environ.get("GATE_SLOWDOWN", "1"))


class SlowedEngine:
    """llama.cpp with every forward call `FACTOR` times as long."""

    def __init__(self, engine: LlamaCppEngine) -> None:
        self._engine = engine
        self.clear = engine.clear
        self.save_state = engine.save_state
        self.load_state = engine.load_state
        self.synchronise = engine.synchronise
        self.logits = engine.logits

    @property
    def vocabulary(self) -> int:
        """Length of the logits."""
        return self._engine.vocabulary

    @property
    def device(self) -> Device:
        """The device that really holds the model."""
        return self._engine.device

    def prefill(self, tokens: Sequence[int]) -> None:
        """One slowed llama_decode of the whole chunk."""
        self._slowed(lambda: self._engine.prefill(tokens))

    def decode(self, token: int) -> None:
        """One slowed llama_decode of one token."""
        self._slowed(lambda: self._engine.decode(token))

    def _slowed(self, call: Callable[[], None]) -> None:
        start = time.perf_counter()
        call()
        self._engine.synchronise()
        end = start + (time.perf_counter() - start) * FACTOR
        while time.perf_counter() < end:  # asleep, the processor would cool down and cost more than the factor
            pass


@dataclass(frozen=True, slots=True)
class Slowed(LlamaCpp):
    """llama.cpp under a name of its own, so that a baseline and a slowed run of it meet."""

    name: str = "slowed"

    def environment(self, device: str | None) -> Mapping[str, str]:  # noqa: ARG002 - the Protocol's signature
        """What its workers read; a worker gets no variable that nobody has named."""
        return {"GATE_SLOWDOWN": str(FACTOR)}

    def open(self, request: OpenRequest) -> SlowedEngine:  # type: ignore[override]  # an Engine, as the Protocol asks
        """Load a `.gguf` as llama-cpp does."""
        return SlowedEngine(LlamaCpp().open(request))


BACKEND = Slowed()
