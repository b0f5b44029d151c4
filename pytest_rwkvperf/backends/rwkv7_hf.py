"""The `rwkv7-hf` package: RWKV-7 as a model of Hugging Face's transformers, in torch's operations alone."""

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


class Package:
    """`RWKV7Cache` holds three lists with a tensor of each layer."""

    compiles_for_each_batch = False

    def __init__(self) -> None:
        self._module = import_module("rwkv7_hf")

    def model(self, arguments: Mapping[str, int]) -> Any:  # noqa: ANN401 - no types here
        """A model with a configuration of these arguments."""
        return self._module.RWKV7ForCausalLM(self._module.RWKV7Config(**arguments))

    def cache(self, layers: int) -> Any:  # noqa: ANN401 - the package's cache
        """An empty cache."""
        return self._module.RWKV7Cache(num_layers=layers)

    def tensors(self, cache: Any) -> list[Any]:  # noqa: ANN401 - the package's cache
        """The states of each layer."""
        return [tensor for part in cache.to_legacy_cache() for tensor in part]

    def holding(self, tensors: Sequence[Any]) -> Any:  # noqa: ANN401 - tensors
        """A cache with these states."""
        layers = len(tensors) // 3
        return self._module.RWKV7Cache(*(tensors[start : start + layers] for start in range(0, 3 * layers, layers)))


@dataclass(frozen=True, slots=True)
class Rwkv7Hf(hf_engine.HfDefaults):
    """The `rwkv7-hf` package on a CPU. What it computes on CUDA has not been compared with the oracle yet."""

    name: str = "rwkv7-hf"
    install: str = "pip install rwkv7-hf torch"
    no_device: str = "reinstall torch"
    max_batch: int = 256
    distributions: tuple[str, ...] = ("rwkv7-hf", "torch")

    def standard_quants(self, device: Device) -> tuple[str, ...]:  # noqa: ARG002 - the Protocol's signature
        """fp32 alone: a CPU computes the others no faster."""
        return ("fp32",)

    def versions(self) -> Mapping[str, str]:
        """The package and what it stands on."""
        return {name: version(name) for name in ("rwkv7-hf", "transformers", "torch")}

    def devices(self) -> Sequence[Device]:
        """The CPU."""
        import_module("rwkv7_hf")
        return (torch_devices.CPU,)

    def open(self, request: OpenRequest) -> hf_engine.HfEngine:
        """Load a `.pth`.

        Raises:
            DeviceError: the device is not the CPU.
            ModelError: the file cannot be used.
        """
        if request.device != torch_devices.CPU.id:
            raise DeviceError(f"rwkv7-hf has no device {request.device!r} here: it is measured on the CPU")
        return hf_engine.HfEngine(request, Package(), torch_devices.CPU)


BACKEND = Rwkv7Hf()
