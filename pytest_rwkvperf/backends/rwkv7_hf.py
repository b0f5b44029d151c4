"""The `rwkv7-hf` package: RWKV-7 as a model of Hugging Face's transformers, in torch's operations alone."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.backends import hf_model
from pytest_rwkvperf.core.engine import BackendDefaults, Device, OpenRequest
from pytest_rwkvperf.core.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from pytest_rwkvperf.core.cases import Format

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_CPU = Device("cpu", "CPU", "cpu")


class HfEngine:
    """`RWKV7ForCausalLM` with one `RWKV7Cache`, called as transformers' `generate` calls it."""

    def __init__(self, request: OpenRequest) -> None:
        import torch

        torch.set_num_threads(request.threads)
        self._torch = torch
        package = import_module("rwkv7_hf")
        self._model = hf_model.load(
            request.path,
            _DTYPES[request.quant],
            lambda arguments: package.RWKV7ForCausalLM(package.RWKV7Config(**arguments)),
        )
        self._new_state = package.RWKV7Cache
        self._logits: Any = None
        self.vocabulary, self.device = int(self._model.config.vocab_size), _CPU
        self.clear()

    def clear(self) -> None:
        """An empty cache, which the model takes for a zero state."""
        self._state = self._new_state(num_layers=len(self._model.model.layers))

    def save_state(self) -> Any:  # noqa: ANN401 - the package's cache
        """Copies of the three tensors of each layer."""
        return self._state.clone()

    def load_state(self, state: Any) -> None:  # noqa: ANN401 - the package's cache
        """Copies again, because the model changes the cache that it is given."""
        self._state = state.clone()

    def prefill(self, tokens: Sequence[int]) -> None:
        """One call of the model; it computes the head for every token and returns the last one's."""
        with self._torch.inference_mode():
            ids = self._torch.tensor([list(tokens)])
            answer = self._model(ids, past_key_values=self._state, use_cache=True, logits_to_keep=1)
        self._logits = answer.logits[0, -1]

    def decode(self, token: int) -> None:
        """The same call with one token: the package has no other path."""
        self.prefill([token])

    def synchronise(self) -> None:
        """On the CPU torch queues nothing."""

    def logits(self) -> npt.NDArray[np.float32]:
        """float32 [vocabulary]."""
        result: npt.NDArray[np.float32] = self._logits.float().numpy()
        return result


@dataclass(frozen=True, slots=True)
class Rwkv7Hf(BackendDefaults):
    """The `rwkv7-hf` package on a CPU. What it computes on CUDA has not been compared with the oracle yet."""

    name: str = "rwkv7-hf"
    format: Format = "pth"
    install: str = "pip install rwkv7-hf torch"
    no_device: str = "reinstall torch"
    standard_chunk: int = 512
    quants: tuple[str, ...] = tuple(_DTYPES)
    distributions: tuple[str, ...] = ("rwkv7-hf", "torch")

    def accepts(self, quant: str) -> bool:
        """float32, bfloat16 or float16."""
        return quant in _DTYPES

    def standard_quants(self, device: Device) -> tuple[str, ...]:  # noqa: ARG002 - the Protocol's signature
        """fp32 alone: a CPU computes the others no faster."""
        return ("fp32",)

    def environment(self, device: str | None) -> Mapping[str, str]:  # noqa: ARG002 - the Protocol's signature
        """Read at import by huggingface_hub: nothing is downloaded, and no server is asked."""
        return {"HF_HUB_OFFLINE": "1"}

    def versions(self) -> Mapping[str, str]:
        """The package and what it stands on."""
        return {name: version(name) for name in ("rwkv7-hf", "transformers", "torch")}

    def build(self) -> str:
        """Of torch: compilers, flags, libraries. The package is known by its modules, which `devices` has loaded."""
        import torch

        return str(torch.__config__.show())

    def devices(self) -> Sequence[Device]:
        """The CPU."""
        import_module("rwkv7_hf")
        return (_CPU,)

    def open(self, request: OpenRequest) -> HfEngine:
        """Load a `.pth`.

        Raises:
            DeviceError: the device is not the CPU.
            ModelError: the file cannot be used.
        """
        if request.device != _CPU.id:
            raise DeviceError(f"rwkv7-hf has no device {request.device!r} here: it is measured on the CPU")
        return HfEngine(request)


BACKEND = Rwkv7Hf()
