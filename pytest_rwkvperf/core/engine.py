"""What a backend is: a handful of facts for the parent process, and an engine or a program for the worker process."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from pytest_rwkvperf.core.cases import Case, Format, Workload
    from pytest_rwkvperf.core.engine_settings import Setting
    from pytest_rwkvperf.core.samples import ToolResult

DeviceKind = Literal["cpu", "gpu", "software"]


@dataclass(frozen=True, slots=True)
class Device:
    """A place where an engine can run. `software` is a graphics driver that computes on the CPU (llvmpipe)."""

    id: str
    name: str
    kind: DeviceKind
    detail: str = ""
    physical: str = ""
    """PCI address (`0000:0a:00.0`) of the hardware, which engines may name differently; empty where an engine does not
    report it."""


def pci_address(text: str | None) -> str:
    """A PCI address as Linux writes it, `0000:0a:00.0`, from the forms that drivers use; empty for anything else.

    NVML writes eight digits of domain and capitals, others omit the domain.
    """
    match = re.fullmatch(
        r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.([0-7]))?", (text or "").strip().lower()
    )
    if match is None:
        return ""
    domain, bus, slot, function = match.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{slot}.{function or 0}"


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """What an engine is asked to load."""

    path: Path
    quant: str
    device: str
    threads: int
    chunk: int
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Values of the backend's own settings by name; of one that is not named the engine's own."""
    on_node: Callable[[int, bool], bool] | None = None
    """llama.cpp alone: called for each node of the graph with its address, before and after it is computed
    (ggml_backend_sched_eval_callback, ggml/include/ggml-backend.h)."""


class Engine(Protocol):
    """A loaded model with one recurrent state, inside a worker process.

    Calls may only queue work; `synchronise` waits for it, and `logits` copies its result to the host.
    """

    @property
    def vocabulary(self) -> int:
        """Length of the logits."""

    @property
    def device(self) -> Device:
        """The device that really holds the model, as the engine reports it."""

    def clear(self) -> None:
        """Reset the recurrent state to its initial value."""

    def save_state(self) -> Any:  # noqa: ANN401 - each engine's own
        """A copy of the recurrent state that later calls do not change, for `load_state`; waits for queued work."""

    def load_state(self, state: Any) -> None:  # noqa: ANN401 - each engine's own
        """Restore the recurrent state from `save_state`'s copy, which can be used again."""

    def prefill(self, tokens: Sequence[int]) -> None:
        """Advance the state by up to `chunk` tokens in one call; the last token's logits are wanted."""

    def decode(self, token: int) -> None:
        """Advance the state by one token along the engine's generation path."""

    def synchronise(self) -> None:
        """Wait until the device has finished everything queued."""

    def logits(self) -> npt.NDArray[np.float32]:
        """The last token's logits on the host: float32 [vocabulary]; valid until the next call."""


class Batch(Protocol):
    """Sequences with a recurrent state each, which advance together. Calls may only queue work, as an `Engine`'s."""

    @property
    def sequences(self) -> int:
        """How many sequences there are."""

    def clear(self) -> None:
        """Reset all states to their initial value."""

    def clear_sequence(self, sequence: int) -> None:
        """Reset one sequence's state; the others stay as they are."""

    def save_state(self) -> Any:  # noqa: ANN401 - each engine's own
        """A copy of all states that later calls do not change, for `load_state`; waits for queued work."""

    def load_state(self, state: Any) -> None:  # noqa: ANN401 - each engine's own
        """Restore all states from `save_state`'s copy, which can be used again."""

    def prefill(self, tokens: Sequence[Sequence[int]]) -> None:
        """Advance sequence i by `tokens[i]` in one call; an empty one leaves its sequence as it is.

        In all at most `chunk` tokens, or one for every sequence where there are more sequences than that.
        """

    def decode(self, tokens: Sequence[int]) -> None:
        """Advance each sequence by one token along the engine's generation path."""

    def synchronise(self) -> None:
        """Wait until the device has finished everything queued."""

    def logits(self) -> npt.NDArray[np.float32]:
        """Each sequence's last logits on the host: float32 [sequences, vocabulary]; valid until the next call.

        The row of a sequence that the last call did not advance is undefined.
        """


@runtime_checkable
class Batching(Protocol):
    """An engine that can advance several sequences together; its backend's `max_batch` is more than 1."""

    def batch(self, sequences: int) -> Batch:
        """Sequences of the same weights, with cleared states; the engine's own single sequence is untouched by them.

        At most one batch is alive: making another one frees the last.

        Raises:
            BackendError: the engine refused, for instance for want of memory.
        """


@runtime_checkable
class CompilesKernels(Protocol):
    """An engine that compiles kernels of its own when it is opened."""

    @property
    def build_seconds(self) -> float:
        """Seconds of compiling them, or of loading built ones; not part of the time to load the model."""


@runtime_checkable
class Program(Protocol):
    """A benchmark program that measures whole invocations by itself. It gives no logits, so it cannot be checked."""

    @property
    def device(self) -> Device:
        """The device that it runs on."""

    @property
    def peak_rss_bytes(self) -> int:
        """Largest resident memory of the invocations so far; 0 where the system does not report it."""

    def bench(self, workloads: Sequence[Workload], report: Callable[[str, float], None]) -> ToolResult:
        """Measure workloads; `report` gets a sentence and the done share, 0..1.

        Raises:
            BackendError: it failed, or its output cannot be read.
        """


@runtime_checkable
class Backend(Protocol):
    """One engine family. Third parties offer theirs by an entry point in the group `pytest_rwkvperf.backends`.

    The module must import without its engine: the parent process reads the attributes and never calls the methods
    marked *worker*. `registry.load` takes from `BackendDefaults` what an object lacks.
    """

    @property
    def name(self) -> str:
        """The word after `--rwkv-backend=`."""

    @property
    def format(self) -> Format:
        """The file format it reads."""

    @property
    def install(self) -> str:
        """The command that installs the engine, for the error about a missing one."""

    @property
    def no_device(self) -> str:
        """What to do when the engine is installed and finds no device."""

    @property
    def quants(self) -> tuple[str, ...]:
        """Every quant this backend may be asked for; `accepts` also takes variants such as `int8@31`."""

    @property
    def standard_chunk(self) -> int:
        """Most tokens in one prefill call by default."""

    @property
    def max_chunk(self) -> int | None:
        """Largest chunk that gives right answers, None when there is no limit."""

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The engine's own settings that change its speed and that `--rwkv-set` may give a value to."""

    @property
    def distributions(self) -> tuple[str, ...]:
        """The installed distributions that are the engine; what they require counts as part of it."""

    @property
    def install_seconds(self) -> float:
        """How long pip takes at most to build the engine from source, in seconds; for estimates."""

    @property
    def max_batch(self) -> int:
        """Most sequences that the engine advances together; with more than 1 it has `Batching`."""

    @property
    def tells_logits(self) -> bool:
        """Whether `open` gives an Engine, whose answers can be checked; False for a Program."""

    def accepts(self, quant: str) -> bool:
        """Whether the backend knows the quant."""

    def contradiction(self, case: Case, device: Device) -> str:
        """Why the settings of a case mean nothing together or on a device, as a sentence; empty if they do."""

    def standard_quants(self, device: Device) -> tuple[str, ...]:
        """The quants measured on a device when none is named."""

    def file_quant(self, quant: str) -> str | None:
        """The quant that the model file itself must have, or None when the engine converts while loading."""

    def emulation(self, quant: str) -> str:
        """How the engine changes the file's weights while loading, as `oracle.emulation` names it, or empty."""

    def environment(self, device: str | None) -> Mapping[str, str]:
        """Environment variables the worker must start with, because the engine reads them at import."""

    def announcement(self, quant: str) -> str:
        """What opening a quant does that takes unexpectedly long, for a line of progress; empty for nothing."""

    def versions(self) -> Mapping[str, str]:
        """*worker* The engine's version first, then those of its dependencies."""

    def build(self) -> str:
        """*worker* The engine's own account of how it was built; empty where it gives none."""

    def devices(self) -> Sequence[Device]:
        """*worker* Every device the engine can run on, best first."""

    def open(self, request: OpenRequest) -> Engine | Program:
        """*worker* Load a model, or prepare a program that will.

        Raises:
            DeviceError: the device does not exist, or the engine used another.
            ModelError: the engine cannot load the file.
        """


class BackendDefaults:
    """Defaults for some parts of `Backend`: inherit from this class and override what differs."""

    max_chunk: int | None = None
    settings: tuple[Setting, ...] = ()
    max_batch: int = 1
    distributions: tuple[str, ...] = ()
    install_seconds: float = 60.0
    tells_logits: bool = True

    def contradiction(self, case: Case, device: Device) -> str:  # noqa: ARG002 - the Protocol's signature
        """Each setting stands for itself."""
        return ""

    def file_quant(self, quant: str) -> str | None:  # noqa: ARG002 - the Protocol's signature
        """It converts while loading."""
        return None

    def emulation(self, quant: str) -> str:  # noqa: ARG002 - the Protocol's signature
        """It computes with the file's own numbers, rounded to its precision."""
        return ""

    def environment(self, device: str | None) -> Mapping[str, str]:  # noqa: ARG002 - the Protocol's signature
        """It reads nothing from the environment."""
        return {}

    def announcement(self, quant: str) -> str:  # noqa: ARG002 - the Protocol's signature
        """Nothing takes unexpectedly long."""
        return ""

    def build(self) -> str:
        """It gives no account of its build."""
        return ""
