"""web-rwkv (Rust, WebGPU) through this project's own binding in `native/web-rwkv`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from pytest_rwkvperf.core.engine import BackendDefaults, Device, DeviceKind, OpenRequest, pci_address
from pytest_rwkvperf.core.engine_settings import Setting
from pytest_rwkvperf.core.errors import BackendError, DeviceError, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from pytest_rwkvperf.core.cases import Format

_BINDING = "rwkvperf_web_rwkv"
_QUANTS = ("fp16", "int8", "nf4", "sf4")
_SETTINGS = (Setting("token-chunk-size", "", refused="it is the chunk: web-rwkv.chunk=64,128"),)
_KINDS: dict[str, DeviceKind] = {"discrete-gpu": "gpu", "integrated-gpu": "gpu", "virtual-gpu": "gpu"}


def _parse(quant: str) -> tuple[str, int | None]:
    """`int8@31` is INT8 in the first 31 layers; without a count, in every layer."""
    name, separator, layers = quant.partition("@")
    return name, int(layers) if separator else None


def _device(adapter: Any, index: int) -> Device:  # noqa: ANN401 - the binding's class, imported in the worker alone
    kind = _KINDS.get(adapter.kind, "software")
    driver = " ".join(part for part in (adapter.driver, adapter.driver_info) if part)
    return Device(f"{adapter.backend}:{index}", adapter.name, kind, driver, pci_address(adapter.pci_bus_id))


def _adapters() -> list[tuple[Any, Device]]:
    """Adapters with their devices, numbered within each graphics API; hardware may be listed under several."""
    counts: dict[str, int] = {}
    adapters = []
    for adapter in import_module(_BINDING).adapters():
        index = counts.setdefault(adapter.backend, 0)
        counts[adapter.backend] += 1
        adapters.append((adapter, _device(adapter, index)))
    return adapters


class WebRwkvBatch:
    """Sequences of the binding, whose forward pass always ends with all logits on the host."""

    def __init__(self, batch: Any) -> None:  # noqa: ANN401 - as above
        self._batch = batch
        self._logits: Any = None

    @property
    def sequences(self) -> int:
        """As the binding says."""
        return int(self._batch.sequences)

    def clear(self) -> None:
        """Fill all states with zeros, on the device."""
        self._batch.clear()

    def clear_sequence(self, sequence: int) -> None:
        """Fill one state with zeros, on the device."""
        self._batch.clear_sequence(sequence)

    def save_state(self) -> npt.NDArray[np.float32]:
        """In host memory, a row for each sequence."""
        return cast("npt.NDArray[np.float32]", self._batch.state())

    def load_state(self, state: npt.NDArray[np.float32]) -> None:
        """Onto the device."""
        self._batch.load_state(state)

    def prefill(self, tokens: Sequence[Sequence[int]]) -> None:
        """One forward; the rows of the logits of sequences without tokens are NaN."""
        self._logits = self._batch.forward(tokens)

    def decode(self, tokens: Sequence[int]) -> None:
        """One forward of one token each: one step of the engine up to 32 sequences and for multiples of 32."""
        self._logits = self._batch.forward([[token] for token in tokens])

    def synchronise(self) -> None:
        """Nothing is queued: the binding's forward waits."""

    def logits(self) -> npt.NDArray[np.float32]:
        """float32 [sequences, vocabulary], on the host already."""
        return cast("npt.NDArray[np.float32]", self._logits)

    def free(self) -> None:
        """Give the states' memory back."""
        self._batch.free()


class WebRwkvEngine:
    """A model of the binding, whose forward pass always ends with the logits on the host."""

    def __init__(self, request: OpenRequest, adapter: Any, device: Device) -> None:  # noqa: ANN401 - as above
        binding = import_module(_BINDING)
        quant, layers = _parse(request.quant)
        try:
            self._model = binding.Model(
                request.path, adapter=adapter.index, quant=quant, quant_layers=layers, chunk=request.chunk
            )
        except (binding.WebRwkvError, ValueError) as error:
            raise ModelError(f"web-rwkv cannot load {request.path}: {error}") from error
        self.vocabulary = int(self._model.vocabulary)
        self.device = device
        self._logits: Any = None
        self._batch: WebRwkvBatch | None = None

    def clear(self) -> None:
        """Load the initial state onto the device."""
        self._model.clear()

    def save_state(self) -> npt.NDArray[np.float32]:
        """In host memory."""
        return cast("npt.NDArray[np.float32]", self._model.state())

    def load_state(self, state: npt.NDArray[np.float32]) -> None:
        """Onto the device."""
        self._model.load_state(state)

    def prefill(self, tokens: Sequence[int]) -> None:
        """One forward of the chunk."""
        self._logits = self._model.forward(tokens)

    def decode(self, token: int) -> None:
        """One forward of one token."""
        self._logits = self._model.forward([token])

    def probabilities(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """A forward of any length with the engine's own softmax behind it, as its `bench` does."""
        return cast("npt.NDArray[np.float32]", self._model.probabilities(tokens))

    def synchronise(self) -> None:
        """Nothing is queued: the binding's forward waits."""

    def logits(self) -> npt.NDArray[np.float32]:
        """float32 [vocabulary], on the host already."""
        return cast("npt.NDArray[np.float32]", self._logits)

    def batch(self, sequences: int) -> WebRwkvBatch:
        """A state of the engine's own for each sequence, beside the single one's; the last batch's are freed."""
        binding = import_module(_BINDING)
        if not hasattr(binding, "Batch"):
            raise BackendError(f"the installed rwkvperf-web-rwkv is older than batches: {BACKEND.install}")
        if self._batch is not None:
            self._batch.free()
        try:
            self._batch = WebRwkvBatch(self._model.batch(sequences))
        except (binding.WebRwkvError, ValueError) as error:
            raise BackendError(f"web-rwkv cannot make a batch of {sequences} sequences: {error}") from error
        return self._batch


@dataclass(frozen=True, slots=True)
class WebRwkv(BackendDefaults):
    """The engine of the guide's first method."""

    name: str = "web-rwkv"
    format: Format = "st"
    install: str = "pip install ./native/web-rwkv  (in a checkout; needs cargo, from https://rustup.rs)"
    no_device: str = (
        "install a Vulkan driver, on Debian without a GPU: apt-get install mesa-vulkan-drivers libvulkan1. To see why "
        "an installed driver does not load (NVIDIA's needs GL's libraries), run: VK_LOADER_DEBUG=error "
        "python -c 'import rwkvperf_web_rwkv; rwkvperf_web_rwkv.adapters()'"
    )
    # The guide's tool uses 128. web-rwkv 0.10.20 stores a chunk's length in 8 bits: longer chunks give wrong answers.
    standard_chunk: int = 128
    max_chunk: int | None = 224
    max_batch: int = 256  # numbers sequences with 8 bits: the 257th would share the first one's state
    quants: tuple[str, ...] = _QUANTS
    settings: tuple[Setting, ...] = _SETTINGS
    distributions: tuple[str, ...] = ("rwkvperf-web-rwkv",)
    install_seconds: float = 300.0

    def accepts(self, quant: str) -> bool:
        """A quant, optionally with the number of first layers that it covers: `int8@31`."""
        name, separator, layers = quant.partition("@")
        if not separator:
            return name in _QUANTS
        return name in _QUANTS and name != "fp16" and layers.isascii() and layers.isdigit() and int(layers) > 0

    def standard_quants(self, device: Device) -> tuple[str, ...]:
        """nf4 only on a GPU: it takes long elsewhere."""
        return ("fp16", "int8", "nf4") if device.kind == "gpu" else ("fp16", "int8")

    def emulation(self, quant: str) -> str:
        """Its block formats; fp16 is the file as it is."""
        return "" if quant == "fp16" else f"web-rwkv:{quant}"

    def versions(self) -> Mapping[str, str]:
        """The crate first, then the binding."""
        binding = import_module(_BINDING)
        return {"web-rwkv": binding.WEB_RWKV_VERSION, "rwkvperf-web-rwkv": version("rwkvperf-web-rwkv")}

    def devices(self) -> Sequence[Device]:
        """Real GPUs first. None under Gl: wgpu has no subgroups there, which web-rwkv's shaders need."""
        listed = [device for adapter, device in _adapters() if adapter.backend != "gl"]
        return sorted(listed, key=lambda device: device.kind != "gpu")

    def open(self, request: OpenRequest) -> WebRwkvEngine:
        """Load a `.st` on the requested adapter."""
        for adapter, device in _adapters():
            if device.id == request.device:
                return WebRwkvEngine(request, adapter, device)
        message = f"web-rwkv has no adapter {request.device!r}"
        raise DeviceError(message)


BACKEND = WebRwkv()
