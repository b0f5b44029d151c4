"""The oracle as a backend: slow, and with nothing to install."""

from __future__ import annotations

from copy import deepcopy
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


@dataclass(frozen=True, slots=True)
class ReferenceBackend(BackendDefaults):
    """This project's own RWKV-7."""

    name: str = "reference"
    format: Format = "st"
    install: str = "pip install numpy"
    no_device: str = "reinstall pytest-rwkvperf"
    standard_chunk: int = 512
    quants: tuple[str, ...] = ("fp32",)

    def accepts(self, quant: str) -> bool:
        """It computes in float32 whatever the file holds."""
        return quant in self.quants

    def standard_quants(self, device: Device) -> tuple[str, ...]:  # noqa: ARG002 - the Protocol's signature
        """The only one."""
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
