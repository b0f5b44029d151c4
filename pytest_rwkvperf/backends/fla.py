"""flash-linear-attention's RWKV-7: a model of Hugging Face's transformers with kernels in Triton, for GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.backends import hf_engine, torch_devices
from pytest_rwkvperf.core.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_rwkvperf.core.engine import Device, OpenRequest

_STATES = ("recurrent_state", "conv_state", "ffn_state")
"""A layer's states: the matrices of its heads, and the last inputs of its attention and its feed-forward part."""


class Package:
    """`Cache` holds a dictionary for each layer; those of RWKV-7 have no `attn_state`."""

    compiles_for_each_batch = True  # Triton takes it for a constant of the recurrence's kernel

    def __init__(self) -> None:
        self._models = import_module("fla.models.rwkv7")
        self._cache: Any = import_module("fla.models.utils").Cache

    def model(self, arguments: Mapping[str, int]) -> Any:  # noqa: ANN401 - no types here
        """A model with a configuration of these arguments."""
        return self._models.RWKV7ForCausalLM(self._models.RWKV7Config(**arguments))

    def cache(self, layers: int) -> Any:  # noqa: ANN401, ARG002 - the package's cache grows with its layers
        """An empty cache."""
        return self._cache()

    def tensors(self, cache: Any) -> list[Any]:  # noqa: ANN401 - the package's cache
        """The states of each layer."""
        return [layer[name] for layer in cache.to_legacy_cache() for name in _STATES]

    def holding(self, tensors: Sequence[Any]) -> Any:  # noqa: ANN401 - tensors
        """A cache with these states."""
        starts = range(0, len(tensors), len(_STATES))
        layers = (dict(zip(_STATES, tensors[start:], strict=False)) for start in starts)
        return self._cache.from_legacy_cache(tuple({"attn_state": None, **layer} for layer in layers))


@dataclass(frozen=True, slots=True)
class Fla(hf_engine.HfDefaults):
    """The `flash-linear-attention` package on CUDA. Its first calls compile and time kernels, which is not measured."""

    name: str = "fla"
    install: str = "pip install flash-linear-attention torch"
    no_device: str = "measure it on a machine with an NVIDIA GPU and a torch for CUDA: its kernels need one"
    max_batch: int = 1024
    distributions: tuple[str, ...] = ("flash-linear-attention", "torch")

    def standard_quants(self, device: Device) -> tuple[str, ...]:  # noqa: ARG002 - the Protocol's signature
        """The two that models are run in."""
        return ("bf16", "fp16")

    def announcement(self, quant: str) -> str:  # noqa: ARG002 - the Protocol's signature
        """Triton compiles each kernel in several configurations and keeps the fastest, on disk too."""
        return "compiles its kernels unless they are kept from an earlier run: minutes the first time"

    def versions(self) -> Mapping[str, str]:
        """The package and what it stands on."""
        return {name: version(name) for name in ("flash-linear-attention", "fla-core", "triton", "torch")}

    def devices(self) -> Sequence[Device]:
        """CUDA devices."""
        import_module("fla.models.rwkv7")
        return torch_devices.cuda_devices()

    def open(self, request: OpenRequest) -> hf_engine.HfEngine:
        """Load a `.pth`.

        Raises:
            DeviceError: torch has no such device.
            ModelError: the file cannot be used.
        """
        device = next((device for device in self.devices() if device.id == request.device), None)
        if device is None:
            raise DeviceError(f"flash-linear-attention has no device {request.device!r}: it computes on CUDA alone")
        return hf_engine.HfEngine(request, Package(), device)


BACKEND = Fla()
