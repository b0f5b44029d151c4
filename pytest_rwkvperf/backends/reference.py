"""The oracle as a backend: slow, and with nothing to install."""

from __future__ import annotations

from copy import copy, deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_rwkvperf.core.engine import BackendDefaults, Device, OpenRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.oracle.rwkv7 import LayerState, Oracle

_CPU = Device("cpu", "NumPy", "cpu")


class ReferenceEngine:
    """The oracle as an Engine. NumPy's BLAS decides how many threads it uses."""

    def __init__(self, oracle: Oracle) -> None:
        self.vocabulary, self.device = oracle.shape.vocabulary, _CPU
        self._oracle = oracle
        self._logits = np.zeros(oracle.shape.vocabulary, np.float32)

    def clear(self) -> None:
        """Zero the state."""
        self._oracle.clear()

    def save_state(self) -> list[LayerState]:
        """A copy of every layer's."""
        return deepcopy(self._oracle.state)

    def load_state(self, state: list[LayerState]) -> None:
        """Copies again, because the oracle computes in place."""
        self._oracle.state = deepcopy(state)

    def prefill(self, tokens: Sequence[int]) -> None:
        """One pass over the chunk."""
        self._logits = self._oracle.forward(tokens)

    def decode(self, token: int) -> None:
        """One pass over one token."""
        self._logits = self._oracle.forward([token])

    def synchronise(self) -> None:
        """NumPy queues nothing."""

    def logits(self) -> npt.NDArray[np.float32]:
        """float32 [vocabulary]."""
        return self._logits

    def batch(self, sequences: int) -> ReferenceBatch:
        """Oracles of the same weights."""
        return ReferenceBatch(self._oracle, sequences)


class ReferenceBatch:
    """An oracle for each sequence, run one after the other: right rather than fast."""

    def __init__(self, oracle: Oracle, sequences: int) -> None:
        self.sequences = sequences
        self._oracles = [copy(oracle) for _ in range(sequences)]
        self._logits = np.full((sequences, oracle.shape.vocabulary), np.nan, np.float32)
        self.clear()

    def clear(self) -> None:
        """Zero all states."""
        for oracle in self._oracles:
            oracle.clear()

    def clear_sequence(self, sequence: int) -> None:
        """Zero one state."""
        self._oracles[sequence].clear()

    def save_state(self) -> list[list[LayerState]]:
        """A copy of every sequence's."""
        return [deepcopy(oracle.state) for oracle in self._oracles]

    def load_state(self, state: list[list[LayerState]]) -> None:
        """Copies again, because the oracles compute in place."""
        for oracle, own in zip(self._oracles, state, strict=True):
            oracle.state = deepcopy(own)

    def prefill(self, tokens: Sequence[Sequence[int]]) -> None:
        """One pass over each sequence's part."""
        for sequence, part in enumerate(tokens):
            if part:
                self._logits[sequence] = self._oracles[sequence].forward(part)

    def decode(self, tokens: Sequence[int]) -> None:
        """One pass over a token of each sequence."""
        self.prefill([[token] for token in tokens])

    def synchronise(self) -> None:
        """NumPy queues nothing."""

    def logits(self) -> npt.NDArray[np.float32]:
        """float32 [sequences, vocabulary]."""
        return self._logits


@dataclass(frozen=True, slots=True)
class ReferenceBackend(BackendDefaults):
    """This project's own RWKV-7."""

    name: str = "reference"
    format: Format = "st"
    install: str = "pip install numpy"
    no_device: str = "reinstall pytest-rwkvperf"
    standard_chunk: int = 512
    max_batch: int = 256
    quants: tuple[str, ...] = ("fp32",)

    def accepts(self, quant: str) -> bool:
        """It computes in float32 whatever the file holds."""
        return quant in self.quants

    def standard_quants(self, device: Device) -> tuple[str, ...]:  # noqa: ARG002 - the Protocol's signature
        """fp32, the only one."""
        return self.quants

    def versions(self) -> Mapping[str, str]:
        """This project's and NumPy's."""
        from pytest_rwkvperf import __version__

        return {"pytest-rwkvperf": __version__, "numpy": np.__version__}

    def devices(self) -> Sequence[Device]:
        """The CPU."""
        return (_CPU,)

    def open(self, request: OpenRequest) -> ReferenceEngine:
        """Map the file into memory."""
        from pytest_rwkvperf.oracle import dequantized
        from pytest_rwkvperf.oracle.rwkv7 import Oracle

        return ReferenceEngine(Oracle(dequantized.read(request.path, self.format)))


BACKEND = ReferenceBackend()
