"""The `rwkv` pip package: torch, `.pth` files, its own RWKV-7 class behind `RWKV_V7_ON=1`."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.backends import torch_devices
from pytest_rwkvperf.core.engine import BackendDefaults, Device, OpenRequest
from pytest_rwkvperf.core.engine_settings import Setting
from pytest_rwkvperf.core.errors import BackendError, DeviceError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.core.samples import Turn


_DTYPES = ("fp32", "bf16", "fp16")
_KERNELS = "kernels"
_SUFFIX = ".pth"
_SETTINGS = (
    Setting(
        "strategy",
        "",
        # RWKV_x070 in rwkv/model.py (0.8.32) reads two words and ignores the rest without a word.
        refused="the package's RWKV-7 class reads the first device and dtype of a strategy and puts every layer there, "
        "whatever else it says; choose them with --rwkv-device and --rwkv-quant",
    ),
)


def _parse(quant: str) -> tuple[str, bool]:
    """`fp16@kernels` is fp16 with the package's own CUDA kernels; without `@kernels`, with torch's operations."""
    dtype, _, variant = quant.partition("@")
    return dtype, variant == _KERNELS


def _import_model(*, kernels: bool) -> tuple[Any, float]:
    """The package's module and its import's seconds; the import compiles the kernels, or loads them built.

    Raises:
        BackendError: the kernels could not be built, or the package silently uses fewer of them.
    """
    os.environ["RWKV_CUDA_ON"] = "1" if kernels else "0"
    if "rwkv.model" in sys.modules:
        raise BackendError("rwkv.model was imported before its kernels could be asked for; use a worker of its own")
    started = time.perf_counter()
    try:
        module = import_module("rwkv.model")
    except (ImportError, RuntimeError, OSError) as error:
        if not kernels:
            raise
        message = (
            f"rwkv's CUDA kernels could not be built: {str(error).strip().splitlines()[0]}; they need nvcc of the CUDA "
            "version torch was built with, a C++ compiler and ninja. Without them: the same quant without @kernels"
        )
        raise BackendError(message) from error
    if kernels and (os.environ["RWKV_CUDA_ON"] != "1" or module.DISABLE_CUBLAS_GEMM):
        raise BackendError("rwkv silently fell back from its cuBLAS kernel; its reason is in the worker's output")
    return module, time.perf_counter() - started


class RwkvEngine:
    """A model in the rwkv package. dtype and device are globals of its module: one engine per process."""

    def __init__(self, request: OpenRequest, device: Device) -> None:
        import torch

        torch.set_num_threads(request.threads)
        if request.device.startswith("cuda"):
            # The package's kernels run on torch's current device, not on their tensors' device.
            torch.cuda.set_device(request.device)
        dtype, kernels = _parse(request.quant)
        # The path must come without its suffix, and the package reads RWKV_V7_ON at import (`RwkvPip.environment`).
        module, seconds = _import_model(kernels=kernels)
        self.build_seconds = seconds if kernels else 0.0
        model_class = module.RWKV
        if not hasattr(model_class, "generate_zero_state"):
            raise BackendError(f"rwkv {version('rwkv')} has no generate_zero_state: install 0.8.31 or later")
        strategy = f"{request.device} {dtype}"
        self._model: Any = model_class(str(request.path).removesuffix(_SUFFIX), strategy)
        self._torch = torch
        self._cuda = request.device.startswith("cuda")
        self._state: Any = None
        self._logits: Any = None
        self.vocabulary = int(self._model.args.vocab_size)
        self.device = device
        self.clear()

    @property
    def weights_device(self) -> str:
        """The device of the head matrix, by torch's name."""
        return str(self._model.z["head.weight"].device)

    def chat(self, tokens: int, chunk: int, report: Callable[[str, float], None]) -> list[Turn]:
        """The guide's three turns of `tokens` tokens each, from a zero state."""
        from pytest_rwkvperf.backends.rwkv_chat import Chat

        return Chat(self._model, self._torch, chunk, cuda=self._cuda).run(tokens, report)

    def clear(self) -> None:
        """A new zero state, allocated here because the package would allocate it inside the first timed call."""
        self._state = self._model.generate_zero_state()
        self.synchronise()

    def save_state(self) -> Any:  # noqa: ANN401 - a list of tensors
        """Copies of the three tensors of each layer."""
        copied = [tensor.clone() for tensor in self._state]
        self.synchronise()
        return copied

    def load_state(self, state: Any) -> None:  # noqa: ANN401 - a list of tensors
        """Copies again, because the package computes in place."""
        self._state = [tensor.clone() for tensor in state]

    def prefill(self, tokens: Sequence[int]) -> None:
        """One call of the package's sequence path (a single token takes its one-token path)."""
        self._logits, self._state = self._model.forward(list(tokens), self._state)

    def decode(self, token: int) -> None:
        """One call of the package's one-token path."""
        self._logits, self._state = self._model.forward(token, self._state)

    def synchronise(self) -> None:
        """Wait for CUDA; on the CPU nothing is queued."""
        if self._cuda:
            self._torch.cuda.synchronize()

    def logits(self) -> npt.NDArray[np.float32]:
        """float32 [vocabulary]; the copy to the host waits for the device."""
        result: npt.NDArray[np.float32] = self._logits.float().cpu().numpy()
        return result


@dataclass(frozen=True, slots=True)
class RwkvPip(BackendDefaults):
    """The `rwkv` package on torch, as the community guide uses it."""

    name: str = "rwkv"
    format: Format = "pth"
    install: str = "pip install rwkv torch"
    no_device: str = "reinstall torch"
    standard_chunk: int = 512
    quants: tuple[str, ...] = _DTYPES
    settings: tuple[Setting, ...] = _SETTINGS
    distributions: tuple[str, ...] = ("rwkv", "torch")  # rwkv does not declare torch

    def accepts(self, quant: str) -> bool:
        """The three dtypes of its RWKV-7 class, each optionally with `@kernels` for its CUDA kernels."""
        return quant.removesuffix(f"@{_KERNELS}") in _DTYPES

    def standard_quants(self, device: Device) -> tuple[str, ...]:
        """On CUDA fp16, as in the guide, and bf16; not fp16 on a CPU, which emulates its arithmetic."""
        return ("fp32", "bf16") if device.kind == "cpu" else ("fp16", "bf16")

    def environment(self, device: str | None) -> Mapping[str, str]:  # noqa: ARG002 - the Protocol's signature
        """Read at import by rwkv/model.py; opening a quant with `@kernels` turns RWKV_CUDA_ON on before that."""
        return {"RWKV_V7_ON": "1", "RWKV_JIT_ON": "1", "RWKV_CUDA_ON": "0"}

    def announcement(self, quant: str) -> str:
        """With `@kernels`, that the package compiles its kernels."""
        return (
            "compiles its CUDA kernels unless they are built: a minute or two the first time"
            if _parse(quant)[1]
            else ""
        )

    def versions(self) -> Mapping[str, str]:
        """Versions of the package and of torch."""
        return {"rwkv": version("rwkv"), "torch": version("torch")}

    def build(self) -> str:
        """Torch's compilers, flags and libraries, and a hash of the package's files.

        The package's model is not imported for that: it reads at import which kernels it compiles, and opening a quant
        decides that.
        """
        import torch

        folder = Path(str(import_module("rwkv").__file__)).parent
        sources = sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".cpp", ".cu", ".so"})
        digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sources)).hexdigest()
        return f"{torch.__config__.show()}\nrwkv = {digest}"

    def devices(self) -> Sequence[Device]:
        """CUDA devices as torch lists them, then the CPU."""
        import_module("rwkv")
        return (*torch_devices.cuda_devices(), torch_devices.CPU)

    def open(self, request: OpenRequest) -> RwkvEngine:
        """Load a `.pth`; the caller has checked it with `weights_only=True`.

        Raises:
            ModelError: the name does not end in `.pth`: the package appends that and would load another file.
        """
        if request.path.suffix != _SUFFIX:
            raise ModelError(f"the rwkv package loads only files that end in {_SUFFIX}; rename {request.path}")
        device = next((device for device in self.devices() if device.id == request.device), None)
        if device is None:
            raise DeviceError(f"rwkv has no device {request.device!r}")
        if _parse(request.quant)[1] and device.kind != "gpu":
            raise DeviceError(
                f"rwkv's kernels run on CUDA alone, not on {device.id}; ask for {_parse(request.quant)[0]}"
            )
        engine = RwkvEngine(request, device)
        if engine.weights_device != request.device:
            message = f"rwkv was asked for {request.device} and put the model on {engine.weights_device}"
            raise DeviceError(message)
        return engine


BACKEND = RwkvPip()
