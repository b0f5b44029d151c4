"""llama.cpp through llama-cpp-python's low-level calls: `eval()` would add work to the timed calls."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.backends import llama_settings
from pytest_rwkvperf.core.engine import BackendDefaults, Device, DeviceKind, OpenRequest, pci_address
from pytest_rwkvperf.core.errors import BackendError, DeviceError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from pytest_rwkvperf.core.cases import Case, Format
    from pytest_rwkvperf.core.engine_settings import Setting

_SEQUENCE = 0  # the one that llama_batch_get_one's tokens belong to

# enum ggml_backend_dev_type, ggml/include/ggml-backend.h
_DEVICE_KINDS: dict[int, DeviceKind] = {0: "cpu", 1: "gpu", 2: "gpu"}

# The file types of enum llama_ftype (include/llama.h) that RWKV users have; files of other types load too.
FILE_TYPES = {
    "f32": "ALL_F32",
    "f16": "MOSTLY_F16",
    "bf16": "MOSTLY_BF16",
    "q8_0": "MOSTLY_Q8_0",
    "q6_k": "MOSTLY_Q6_K",
    "q5_k_m": "MOSTLY_Q5_K_M",
    "q5_k_s": "MOSTLY_Q5_K_S",
    "q5_1": "MOSTLY_Q5_1",
    "q5_0": "MOSTLY_Q5_0",
    "q4_k_m": "MOSTLY_Q4_K_M",
    "q4_k_s": "MOSTLY_Q4_K_S",
    "q4_1": "MOSTLY_Q4_1",
    "q4_0": "MOSTLY_Q4_0",
}


def ggml() -> Any:  # noqa: ANN401 - a ctypes library has no type of its own
    """The ggml library that llama-cpp-python has loaded, with the few signatures used here declared."""
    binding = import_module("llama_cpp._ctypes_extensions")
    # The binding loads libllama from this folder but ggml from its own, which may be another build with other devices.
    elsewhere = os.environ.get("LLAMA_CPP_LIB_PATH")
    library = (
        binding.load_shared_library("ggml", Path(elsewhere)) if elsewhere else import_module("llama_cpp._ggml").libggml
    )
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    library.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    for name, result in (("name", ctypes.c_char_p), ("description", ctypes.c_char_p), ("type", ctypes.c_int)):
        function = getattr(library, f"ggml_backend_dev_{name}")
        function.argtypes = [ctypes.c_void_p]
        function.restype = result
    return library


def _listed() -> list[tuple[int, Device]]:
    """Devices of ggml with their handles. `CUDA0` becomes `cuda:0`; a CPU's accelerators (BLAS, AMX) are left out."""
    library = ggml()
    devices = []
    for index in range(library.ggml_backend_dev_count()):
        handle = library.ggml_backend_dev_get(index)
        kind = _DEVICE_KINDS.get(library.ggml_backend_dev_type(handle))
        if kind is None:
            continue
        name = library.ggml_backend_dev_name(handle).decode()
        description = library.ggml_backend_dev_description(handle).decode()
        family = name.rstrip("0123456789")
        device_id = "cpu" if kind == "cpu" else f"{family.lower()}:{name[len(family) :] or 0}"
        software = kind == "gpu" and "llvmpipe" in description.lower()
        address = _address(library, handle) if kind == "gpu" else ""
        devices.append((handle, Device(device_id, description, "software" if software else kind, physical=address)))
    return devices


class _Properties(ctypes.Structure):
    """struct ggml_backend_dev_props, ggml/include/ggml-backend.h; `device_id` is a PCI address, NULL if unknown."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("capabilities", ctypes.c_bool * 16),  # four today; room for more
    )


def _address(library: Any, handle: int) -> str:  # noqa: ANN401 - a ctypes library
    properties = _Properties()
    library.ggml_backend_dev_get_props.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Properties)]
    library.ggml_backend_dev_get_props(handle, ctypes.byref(properties))
    return pci_address((properties.device_id or b"").decode(errors="replace"))


class _Log:
    """llama.cpp's log while it loads; also written to stderr, for the worker's last lines."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401 - a ctypes library
        self.text = ""
        self._callback = library.llama_log_callback(self._keep)
        library.llama_log_set(self._callback, None)

    def _keep(self, _level: int, text: bytes, _data: object) -> None:
        line = text.decode(errors="replace")
        self.text += line
        sys.stderr.write(line)


def check_offload(log: str, device: Device, layers: int | None = None) -> None:
    """Check in llama.cpp's log that this number of layers is on the device; without a number, every layer.

    Raises:
        DeviceError: others are, or the log does not say.
    """
    offloaded = re.search(r"offloaded (\d+)/(\d+) layers to GPU", log)
    if offloaded is None:
        raise DeviceError(f"llama.cpp does not say how many layers it put on {device.id}, so none is measured there")
    there, every = map(int, offloaded.groups())
    if there != (every if layers is None else min(layers, every)):
        raise DeviceError(f"llama.cpp put {there} of {every} layers on {device.id}; free memory there")
    if not there:
        return
    family, _, number = device.id.partition(":")
    buffers = {name.lower(): float(size) for name, size in re.findall(r"(\S+) model buffer size = +([\d.]+) MiB", log)}
    if not any(name in {f"{family}{number}", family} and size > 0 for name, size in buffers.items()):
        raise DeviceError(
            f"llama.cpp made no buffer for the model on {device.id}, only on {', '.join(buffers) or 'none'}"
        )


class LlamaCppEngine:
    """A llama.cpp model and context. This object keeps the arrays alive that llama.cpp has pointers to."""

    def __init__(self, request: OpenRequest, handle: int, device: Device) -> None:
        self._lib: Any = import_module("llama_cpp.llama_cpp")
        self.device = device
        self._request = request
        self._lib.llama_backend_init()
        self._on_node: Any = None
        if (on_node := request.on_node) is not None:
            self._on_node = self._lib.ggml_backend_sched_eval_callback(
                lambda tensor, asked, _data: on_node(tensor, asked)
            )
        self._model = self._load(request, handle)
        self._context = self._lib.llama_init_from_model(self._model, self._context_params(request))
        if not self._context:
            message = f"llama.cpp could not make a context for {request.path} (chunk {request.chunk})"
            raise BackendError(message)
        self._pool = llama_settings.attach_threads(self._context, ggml(), request.settings, request.threads)
        self._memory = self._lib.llama_get_memory(self._context)
        self.vocabulary = int(self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model)))
        # llama_batch_get_one keeps a pointer only: without this reference llama_decode fails with -1.
        self._tokens: Any = None
        self._views: dict[int, npt.NDArray[np.float32]] = {}
        self._batch: LlamaCppBatch | None = None

    def batch(self, sequences: int) -> LlamaCppBatch:
        """A second context on the same model, made as llama-batched-bench makes its own.

        Source: tools/batched-bench/batched-bench.cpp.
        """
        if self._batch is not None:
            self._batch.free()
            self._batch = None
        params = self._context_params(self._request)
        params.n_seq_max = sequences
        # Without kv_unified each sequence has its own part of n_ctx, which again only bounds its position counter.
        params.n_ctx *= sequences
        params.n_batch = max(params.n_batch, sequences)
        if "ubatch" not in self._request.settings:
            params.n_ubatch = params.n_batch
        context = self._lib.llama_init_from_model(self._model, params)
        if not context:
            most = self._lib.llama_max_parallel_sequences()
            raise BackendError(
                f"llama.cpp could not make a context for {sequences} sequences, of which it allows {most}; "
                "if these are fewer, the memory did not suffice: its reason is in the worker's last lines"
            )
        llama_settings.attach(context, self._pool)
        self._batch = LlamaCppBatch(self._lib, context, sequences, self.vocabulary)
        return self._batch

    def _load(self, request: OpenRequest, handle: int) -> Any:  # noqa: ANN401 - an opaque pointer
        params = self._lib.llama_model_default_params()
        offload = self.device.kind != "cpu"
        layers = int(request.settings["n-gpu-layers"]) if "n-gpu-layers" in request.settings else None
        params.n_gpu_layers = (-1 if layers is None else layers) if offload else 0
        # A NULL-terminated list: the requested device alone, or only the CPU.
        self._devices = (ctypes.c_void_p * 2)(handle if offload else None, None)
        params.devices = ctypes.cast(self._devices, ctypes.c_void_p)
        llama_settings.apply_to_model(params, request.settings)
        self._log = _Log(self._lib)
        model = self._lib.llama_model_load_from_file(os.fsencode(request.path), params)
        if not model:
            message = f"llama.cpp cannot load {request.path}; its reason is in the worker's last lines"
            raise ModelError(message)
        if offload:
            check_offload(self._log.text, self.device, layers)
        return model

    def _context_params(self, request: OpenRequest) -> Any:  # noqa: ANN401 - a ctypes structure
        params = self._lib.llama_context_default_params()
        # RWKV has no cache that grows with the context, so n_ctx only bounds the position counter.
        params.n_ctx = 1 << 20
        params.n_batch = params.n_ubatch = request.chunk
        params.n_threads = params.n_threads_batch = request.threads
        params.offload_kqv = params.op_offload = self.device.kind != "cpu"
        params.no_perf = True
        llama_settings.apply_to_context(params, request.settings)
        if self._on_node is not None:
            params.cb_eval = self._on_node
        return params

    def clear(self) -> None:
        """Zero the recurrent state, data included."""
        self._lib.llama_memory_clear(self._memory, True)  # noqa: FBT003 - positional in C
        self.synchronise()

    def save_state(self) -> Any:  # noqa: ANN401 - a ctypes array
        """The only sequence's state and position in host memory, as llama.cpp serializes them."""
        return _saved(self._lib, self._context, _SEQUENCE)

    def load_state(self, state: Any) -> None:  # noqa: ANN401 - a ctypes array
        """What llama-bench does before each repetition at a depth (tools/llama-bench/llama-bench.cpp)."""
        _restore(self._lib, self._context, _SEQUENCE, state)

    def prefill(self, tokens: Sequence[int]) -> None:
        """One llama_decode of the whole chunk, logits for its last token."""
        self._decode((ctypes.c_int32 * len(tokens))(*tokens), len(tokens))

    def decode(self, token: int) -> None:
        """One llama_decode of one token."""
        self._decode((ctypes.c_int32 * 1)(token), 1)

    def _decode(self, tokens: Any, count: int) -> None:  # noqa: ANN401 - a ctypes array
        self._tokens = tokens
        status = self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(tokens, count))
        if status != 0:
            message = f"llama_decode returned {status} for {count} tokens"
            raise BackendError(message)

    def synchronise(self) -> None:
        """Wait for the device."""
        self._lib.llama_synchronize(self._context)

    def logits(self) -> npt.NDArray[np.float32]:
        """float32 [vocabulary], a view of llama.cpp's memory; llama_get_logits_ith waits for the device.

        The view is made once for each address that llama.cpp copies the logits to.
        """
        pointer = self._lib.llama_get_logits_ith(self._context, -1)
        address = ctypes.addressof(pointer.contents)
        if address not in self._views:
            import numpy as np

            self._views[address] = np.ctypeslib.as_array(pointer, shape=(self.vocabulary,))
        return self._views[address]


def _saved(library: Any, context: Any, sequence: int) -> Any:  # noqa: ANN401 - ctypes
    """A sequence's state and position in host memory, as llama.cpp serializes them."""
    size = library.llama_state_seq_get_size(context, sequence)
    state = (ctypes.c_uint8 * size)()
    copied = library.llama_state_seq_get_data(context, state, size, sequence)
    if not size or copied != size:  # 0 for any error
        raise BackendError(f"llama.cpp copied {copied} of the state's {size} bytes; its reason is in its log")
    return state


def _restore(library: Any, context: Any, sequence: int, state: Any) -> None:  # noqa: ANN401 - ctypes
    """Give a sequence a saved state."""
    size = len(state)
    read = library.llama_state_seq_set_data(context, state, size, sequence)
    if read != size:
        raise BackendError(f"llama.cpp took {read} of a saved state's {size} bytes; its reason is in its log")


@dataclass(frozen=True, slots=True)
class _Layout:
    """A llama_batch for parts of certain lengths, and the arrays that it points to."""

    batch: Any
    tokens: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    kept: tuple[Any, ...]
    owners: npt.NDArray[np.intp]
    """The sequence of each token."""
    offsets: npt.NDArray[np.int32]
    """The place of each token in its sequence's part."""
    lengths: npt.NDArray[np.int32]
    """Tokens of each sequence."""
    advanced: npt.NDArray[np.intp]
    """The sequences with tokens."""


class LlamaCppBatch:
    """Sequences of one context. Calls of the same lengths share a llama_batch, of which only contents are replaced."""

    def __init__(self, library: Any, context: Any, sequences: int, vocabulary: int) -> None:  # noqa: ANN401 - ctypes
        import numpy as np

        self.sequences = sequences
        self._lib, self._context = library, context
        self._vocabulary = vocabulary
        self._memory = library.llama_get_memory(context)
        self._positions = np.zeros(sequences, np.int32)
        self._ids = (ctypes.c_int32 * sequences)(*range(sequences))
        self._laid_out = lru_cache(maxsize=8)(self._lay_out)
        self._step = self._last = self._lay_out((1,) * sequences)

    def free(self) -> None:
        """End the context; nothing else may be called afterwards."""
        self._lib.llama_free(self._context)

    def clear(self) -> None:
        """Zero all states, data included."""
        self._lib.llama_memory_clear(self._memory, True)  # noqa: FBT003 - positional in C
        self.synchronise()
        self._positions[:] = 0

    def clear_sequence(self, sequence: int) -> None:
        """Remove the sequence; its next token begins with a zeroed state."""
        if not self._lib.llama_memory_seq_rm(self._memory, sequence, -1, -1):
            raise BackendError(f"llama.cpp could not clear sequence {sequence}; its reason is in its log")
        self._positions[sequence] = 0

    def save_state(self) -> tuple[list[Any], npt.NDArray[np.int32]]:
        """Each sequence's state, and its position."""
        states = [_saved(self._lib, self._context, each) for each in range(self.sequences)]
        return states, self._positions.copy()

    def load_state(self, state: tuple[list[Any], npt.NDArray[np.int32]]) -> None:
        """Put each sequence's state into the emptied memory, so that all lie in the order of their numbers."""
        states, positions = state
        self.clear()
        for sequence, own in enumerate(states):
            _restore(self._lib, self._context, sequence, own)
        self._positions[:] = positions

    def prefill(self, tokens: Sequence[Sequence[int]]) -> None:
        """One llama_decode of all parts, logits for the last token of each."""
        self._decode(self._laid_out(tuple(map(len, tokens))), [*chain.from_iterable(tokens)])

    def decode(self, tokens: Sequence[int]) -> None:
        """One llama_decode of a token of each sequence."""
        self._decode(self._step, tokens)

    def _decode(self, layout: _Layout, tokens: Sequence[int]) -> None:
        layout.tokens[:] = tokens
        layout.positions[:] = self._positions[layout.owners] + layout.offsets
        status = self._lib.llama_decode(self._context, layout.batch)
        if status != 0:
            raise BackendError(f"llama_decode returned {status} for {len(tokens)} tokens of {self.sequences} sequences")
        self._positions += layout.lengths
        self._last = layout

    def _lay_out(self, lengths: tuple[int, ...]) -> _Layout:
        import numpy as np

        owners = np.repeat(np.arange(self.sequences), lengths)
        is_last = np.diff(owners, append=self.sequences) > 0
        numbers, pointer = ctypes.c_int32 * len(owners), ctypes.POINTER(ctypes.c_int32)
        tokens, positions, each_has = numbers(), numbers(), numbers(*[1] * len(owners))
        size = ctypes.sizeof(ctypes.c_int32)
        owned_by = (pointer * len(owners))(
            *(ctypes.cast(ctypes.byref(self._ids, size * sequence), pointer) for sequence in owners.tolist())
        )
        wanted = (ctypes.c_int8 * len(owners))(*is_last.tolist())
        return _Layout(
            batch=self._lib.llama_batch(len(owners), tokens, None, positions, each_has, owned_by, wanted),
            tokens=np.ctypeslib.as_array(tokens),
            positions=np.ctypeslib.as_array(positions),
            kept=(each_has, owned_by, wanted),
            owners=owners,
            offsets=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
            lengths=np.array(lengths, np.int32),
            advanced=np.flatnonzero(lengths),
        )

    def synchronise(self) -> None:
        """Wait for the device."""
        self._lib.llama_synchronize(self._context)

    def logits(self) -> npt.NDArray[np.float32]:
        """float32 [sequences, vocabulary]: a view of llama.cpp's memory where the last call advanced all of them.

        llama_get_logits waits for the device, and has a row for each wanted token in the order of the batch.
        """
        import numpy as np

        advanced = self._last.advanced
        pointer = self._lib.llama_get_logits(self._context)
        rows = np.ctypeslib.as_array(pointer, shape=(len(advanced), self._vocabulary))
        if len(advanced) == self.sequences:
            return rows
        spread = np.full((self.sequences, self._vocabulary), np.nan, np.float32)
        spread[advanced] = rows
        return spread


@dataclass(frozen=True, slots=True)
class LlamaCpp(BackendDefaults):
    """The engine of the guide's third method."""

    name: str = "llama-cpp"
    format: Format = "gguf"
    install: str = "pip install llama-cpp-python  (compiles for 6 to 12 minutes; needs a C++ compiler)"
    no_device: str = "reinstall llama-cpp-python"
    standard_chunk: int = 512
    max_batch: int = 256  # LLAMA_MAX_SEQ, src/llama-cparams.h
    quants: tuple[str, ...] = tuple(FILE_TYPES)
    settings: tuple[Setting, ...] = llama_settings.SETTINGS
    distributions: tuple[str, ...] = ("llama-cpp-python",)
    install_seconds: float = 720.0

    def accepts(self, quant: str) -> bool:
        """llama.cpp's own names, in lower case."""
        return quant in FILE_TYPES

    def contradiction(self, case: Case, device: Device) -> str:
        """Of micro-batches, layers and processors."""
        return llama_settings.contradiction(case, device)

    def standard_quants(self, device: Device) -> tuple[str, ...]:  # noqa: ARG002 - the Protocol's signature
        """The guide's two files."""
        return ("f16", "q8_0")

    def file_quant(self, quant: str) -> str | None:
        """A file is made per quant."""
        return quant

    def versions(self) -> Mapping[str, str]:
        """The binding and its llama.cpp, whose version bindings up to 0.3.30 do not have."""
        library = import_module("llama_cpp.llama_cpp")
        llama_version = getattr(library, "llama_version", None)
        inner = {} if llama_version is None else {"llama.cpp": llama_version().decode()}
        return {"llama-cpp-python": version("llama-cpp-python"), **inner}

    def build(self) -> str:
        """The instruction sets and options that it was compiled with."""
        account: bytes = import_module("llama_cpp.llama_cpp").llama_print_system_info()
        return account.decode(errors="replace")

    def devices(self) -> Sequence[Device]:
        """GPUs first, then the CPU."""
        return ranked(device for _, device in _listed())

    def open(self, request: OpenRequest) -> LlamaCppEngine:
        """Load a `.gguf` onto exactly the requested device."""
        for handle, device in _listed():
            if device.id == request.device:
                return LlamaCppEngine(request, handle, device)
        message = f"llama.cpp has no device {request.device!r}"
        raise DeviceError(message)

    def quantize(self, source: Path, target: Path, quant: str) -> None:
        """*worker* Make a quantized `.gguf` with llama.cpp's own quantizer.

        Raises:
            BackendError: the quantizer refused.
        """
        library = import_module("llama_cpp.llama_cpp")
        params = library.llama_model_quantize_default_params()
        params.ftype = getattr(library, f"LLAMA_FTYPE_{FILE_TYPES[quant]}")
        status = library.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
        if status != 0:
            message = f"llama.cpp's quantizer returned {status} making {quant} of {source}"
            raise BackendError(message)


def ranked(devices: Iterable[Device]) -> list[Device]:
    """Best first. A software GPU comes after the CPU that it runs on; ggml lists it before."""
    order: tuple[DeviceKind, ...] = ("gpu", "cpu", "software")
    return sorted(devices, key=lambda device: order.index(device.kind))


BACKEND = LlamaCpp()
