"""The Rust module behind `rwkvperf_web_rwkv`."""

import os
from collections.abc import Sequence
from typing import Final, Literal, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "LARGEST_BATCH",
    "LARGEST_CHUNK",
    "VERSION",
    "WEB_RWKV_VERSION",
    "Adapter",
    "Batch",
    "Model",
    "WebRwkvError",
    "adapters",
]

LARGEST_BATCH: Final[int]
"""The most sequences a batch can have: web-rwkv 0.10.20 numbers them with 8 bits, and more would share states."""

LARGEST_CHUNK: Final[int]
"""The largest chunk a model takes, in tokens: after a longer one the state is wrong (see `Model`)."""

VERSION: Final[str]
"""This distribution's version."""

WEB_RWKV_VERSION: Final[str]
"""The version of the web-rwkv crate inside."""

class WebRwkvError(Exception):
    """The model file, the adapter or the engine failed; the message is one sentence."""

@final
class Adapter:
    """A device as one graphics interface shows it. Equal and hashable by value; made by `adapters()` only.

    A device that two interfaces reach (for example Vulkan and Gl) is listed once for each.
    """

    @property
    def index(self) -> int:
        """Position in `adapters()`."""
    @property
    def name(self) -> str:
        """The device's name, as its driver gives it."""
    @property
    def kind(self) -> Literal["discrete-gpu", "integrated-gpu", "virtual-gpu", "cpu", "other"]: ...
    @property
    def backend(self) -> Literal["vulkan", "metal", "dx12", "gl"]: ...
    @property
    def driver(self) -> str:
        """The driver's name; empty where the interface does not report it."""
    @property
    def driver_info(self) -> str:
        """The driver's version, as the driver writes it; empty where the interface does not report it."""
    @property
    def vendor(self) -> int:
        """PCI vendor id; 0 where the interface does not report it."""
    @property
    def device(self) -> int:
        """PCI device id; 0 where the interface does not report it."""
    @property
    def pci_bus_id(self) -> str | None:
        """PCI address such as "0000:01:00.0"; None where the interface does not report it."""
    def __hash__(self) -> int: ...

@final
class Model:
    """An RWKV-7 model in web-rwkv, with one recurrent state; `batch` gives more.

    Calls from several threads take turns. The interpreter is free for other threads while the model loads, runs or is
    cleared. After a panic in the engine the model is unusable, and every call says so.

    Raises:
        ValueError: an argument is out of range.
        WebRwkvError: the file cannot be read, is not a complete RWKV-7 `.st` file, or does not fit the adapter.
    """

    def __new__(
        cls,
        path: str | os.PathLike[str],
        *,
        adapter: int,
        quant: str = "fp16",
        quant_layers: int | None = None,
        chunk: int = 128,
    ) -> Model:
        """Load a model.

        Args:
            path: a `.st` file; mapped, not read whole.
            adapter: index into `adapters()`.
            quant: "fp16", "int8", "nf4" or "sf4", for the six large matrices of a layer; everything else stays fp16.
            quant_layers: number of layers, from the first, that are quantized; None: all.
            chunk: tokens the engine takes at a time, 1 to LARGEST_CHUNK; rounded up to a multiple of 32. After a longer
                chunk the state would be wrong, because web-rwkv 0.10.20 keeps its length in 8 bits.
        """
    @property
    def vocabulary(self) -> int:
        """Number of token ids; the length of the logits."""
    @property
    def layers(self) -> int:
        """Number of layers."""
    @property
    def width(self) -> int:
        """Number of channels, C in the papers."""
    @property
    def adapter(self) -> Adapter:
        """The adapter the model runs on."""
    @property
    def quant(self) -> Literal["fp16", "int8", "nf4", "sf4"]: ...
    @property
    def quant_layers(self) -> int:
        """Number of layers, from the first, that are quantized; 0 for fp16."""
    @property
    def chunk(self) -> int:
        """Tokens the engine takes at a time: the chunk asked for, rounded up to a multiple of 32."""
    def clear(self) -> None:
        """Set the recurrent state back to its initial value, on the device, and wait until that is done.

        Raises:
            WebRwkvError: the engine failed, now or earlier.
        """
    def state(self) -> npt.NDArray[np.float32]:
        """Copy the recurrent state to host memory: flat, of the same length for any number of tokens.

        Raises:
            WebRwkvError: the engine failed, now or earlier.
        """
    def load_state(self, state: npt.NDArray[np.float32]) -> None:
        """Copy a state from `state` of a model of the same shape back to the device, and wait until that is done.

        Raises:
            TypeError: `state` is not a flat float32 array.
            ValueError: it has another length; the state is unchanged.
            WebRwkvError: the engine failed, now or earlier.
        """
    def forward(self, tokens: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Advance the state by `tokens`; return the logits after the last one, [vocabulary], in host memory.

        Returns when the device has finished. An engine error leaves the state undefined: clear it.

        Raises:
            ValueError: `tokens` is empty, or one is not in 0 … vocabulary - 1; the state is unchanged.
            WebRwkvError: the engine failed, now or earlier.
        """

    def probabilities(self, tokens: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """As `forward`, followed by the engine's own softmax: probabilities instead of logits.

        The logits go to the device and back once more, as in web-rwkv's own `bench`.

        Raises:
            ValueError, WebRwkvError: as `forward`.
        """

    def batch(self, sequences: int) -> Batch:
        """Make sequences of the same weights that advance together, with cleared states on the device.

        The model's own state is untouched by them.

        Args:
            sequences: 1 to LARGEST_BATCH.

        Raises:
            ValueError: there cannot be so many.
            WebRwkvError: the engine failed, now or earlier, for instance for want of device memory.
        """

@final
class Batch:
    """Sequences of a model's weights, with a recurrent state each, which advance together; made by `Model.batch`.

    It takes turns with the model's own calls, keeps the model alive, and is unusable where the model is.
    """

    @property
    def sequences(self) -> int:
        """Number of sequences."""
    def clear(self) -> None:
        """Set all states back to their initial value, on the device, and wait until that is done.

        Raises:
            WebRwkvError: the engine failed, now or earlier.
        """
    def clear_sequence(self, sequence: int) -> None:
        """Set one sequence's state back to its initial value; the others stay as they are.

        Raises:
            ValueError: there is no such sequence.
            WebRwkvError: the engine failed, now or earlier.
        """
    def state(self) -> npt.NDArray[np.float32]:
        """Copy the states to host memory: [sequences, n], each row as `Model.state` of a model with that state.

        Raises:
            WebRwkvError: the engine failed, now or earlier.
        """
    def load_state(self, state: npt.NDArray[np.float32]) -> None:
        """Copy states from `state` back to the device, and wait until that is done.

        Raises:
            TypeError: `state` is not a two-dimensional float32 array.
            ValueError: it has another shape; the states are unchanged.
            WebRwkvError: the engine failed, now or earlier.
        """
    def forward(self, tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Advance sequence i by `tokens[i]`; return the logits after its last one, [sequences, vocabulary].

        An empty list leaves its sequence as it is, and its row is NaN. The logits are in host memory. The engine takes
        up to a chunk of all sequences' tokens at a time, or one token of each where there are more sequences; beyond 32
        tokens it takes a multiple of 32, and the rest in another step.

        Raises:
            ValueError: there is not one list for each sequence, all are empty, or a token is not in
                0 … vocabulary - 1; the states are unchanged.
            WebRwkvError: the engine failed, now or earlier; the states are undefined: clear them.
        """
    def free(self) -> None:
        """Give the states' device memory back; every later call is refused. Deleting the object does so too.

        What the engine caches beside the states (activations, logits) is freed within 64 more steps of the model.
        """

def adapters() -> list[Adapter]:
    """List the adapters of this machine; the same list for the life of the process.

    Vulkan's come first, then Metal's, Direct3D 12's and Gl's; within each, discrete GPUs, integrated, virtual,
    others, CPUs.

    Raises:
        WebRwkvError: the graphics driver failed.
    """
