"""A backend that makes another one slower by a known factor. It comes in by the entry point for third parties.

So the project measures and judges it without knowing what it is. Two variables say what it does:

    RWKVPERF_PLANTED_IN         where the backend is that is slowed, as `module:attribute`
    RWKVPERF_PLANTED_SLOWDOWN   how many times as long every forward call takes; 1 changes nothing
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from pytest_rwkvperf.core.engine import Backend, Batch, Device, Engine, OpenRequest

NAME = "planted"
WITHIN, SLOWDOWN = "RWKVPERF_PLANTED_IN", "RWKVPERF_PLANTED_SLOWDOWN"


class _Slowed:
    """Every forward call of an engine or a batch `factor` times as long, and everything else as it is."""

    def __init__(self, slowed: Engine | Batch, factor: float) -> None:
        self._within: Any = slowed
        self.factor = factor

    def clear(self) -> None:
        """Reset the state."""
        self._within.clear()

    def save_state(self) -> Any:  # noqa: ANN401 - the engine's own
        """A copy of the state."""
        return self._within.save_state()

    def load_state(self, state: Any) -> None:  # noqa: ANN401 - the engine's own
        """Restore a copy."""
        self._within.load_state(state)

    def prefill(self, tokens: Sequence[Any]) -> None:
        """One slowed call for the whole chunk."""
        self.slowed(lambda: self._within.prefill(tokens))

    def decode(self, tokens: Any) -> None:  # noqa: ANN401 - one token, or one of each sequence
        """One slowed call for one step."""
        self.slowed(lambda: self._within.decode(tokens))

    def synchronise(self) -> None:
        """Wait for the device."""
        self._within.synchronise()

    def logits(self) -> npt.NDArray[np.float32]:
        """The last logits."""
        logits: npt.NDArray[np.float32] = self._within.logits()
        return logits

    def slowed(self, call: Callable[[], None]) -> None:
        """Make a call, and compute on until it has taken `factor` times as long as it did."""
        start = time.perf_counter()
        call()
        self._within.synchronise()
        end = start + (time.perf_counter() - start) * self.factor
        while time.perf_counter() < end:  # asleep, the processor would cool down and cost more than the factor
            pass


class PlantedEngine(_Slowed):
    """An engine, slowed."""

    @property
    def vocabulary(self) -> int:
        """Length of the logits."""
        return int(self._within.vocabulary)

    @property
    def device(self) -> Device:
        """The device that really holds the model."""
        device: Device = self._within.device
        return device

    def batch(self, sequences: int) -> PlantedBatch:
        """Asked for where the slowed backend's `max_batch` is more than 1."""
        return PlantedBatch(self._within.batch(sequences), self.factor)


class PlantedBatch(_Slowed):
    """A batch, slowed."""

    @property
    def sequences(self) -> int:
        """How many there are."""
        return int(self._within.sequences)

    def clear_sequence(self, sequence: int) -> None:
        """Reset one state."""
        self._within.clear_sequence(sequence)


class Planted:
    """The slowed backend, under a name of its own: a baseline and a slowed run of it meet."""

    name = NAME

    def __getattr__(self, part: str) -> Any:  # noqa: ANN401 - as the slowed backend has it
        """Every other part of the Protocol `Backend`, as the slowed backend has it."""
        if part.startswith("_"):
            raise AttributeError(part)
        return getattr(self._within(), part)

    def environment(self, device: str | None) -> Mapping[str, str]:
        """What its workers read; a worker gets no variable that nobody has named."""
        return {**self._within().environment(device), **worker_variables(_location(), _factor())}

    def open(self, request: OpenRequest) -> PlantedEngine:
        """Load a model as the slowed backend does."""
        engine: Any = self._within().open(request)
        return PlantedEngine(engine, _factor())

    @staticmethod
    def _within() -> Backend:
        return registry.load(_location())


def _location() -> str:
    location = os.environ.get(WITHIN)
    if not location:
        raise OptionError(f"{WITHIN} does not say which backend is slowed; rwkvperf certify sets it")
    return location


def _factor() -> float:
    return float(os.environ.get(SLOWDOWN, "1"))


BACKEND = Planted()
LOCATION = f"{__name__}:BACKEND"


def offer(folder: Path, location: str = LOCATION) -> None:
    """Write the metadata of an installed distribution with the entry point into a folder that is put on the path."""
    info = folder / "planted_backend-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted-backend\nVersion: 1.0\n", encoding="utf-8")
    entry = f"[{registry.GROUP}]\n{NAME} = {location}\n"
    (info / "entry_points.txt").write_text(entry, encoding="utf-8")


def variables(folder: Path, within: str, factor: float) -> dict[str, str]:
    """The environment of a program that finds what `offer` wrote; `within` is the location of the slowed backend."""
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **worker_variables(within, factor)}


def worker_variables(within: str, factor: float) -> dict[str, str]:
    """What a worker reads: where the slowed backend is, and how many times as long its calls take."""
    return {WITHIN: within, SLOWDOWN: f"{factor:.9f}"}
