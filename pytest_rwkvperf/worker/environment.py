"""The environment variables that a worker gets: those that systems, engines and drivers read, without secrets."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.text import is_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

MORE_VARIABLES = "RWKVPERF_PASS_ENV"
"""Names and patterns (`MYENGINE_*`) of further variables to pass, separated by spaces or commas; passed even if a name
looks like a secret's."""

_SYSTEM = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_*", "TZ", "TZDIR", "TERM", "COLUMNS", "SHELL",
    "XDG_*", "DISPLAY", "WAYLAND_DISPLAY", "LD_*", "DYLD_*", "MALLOC_*", "GLIBC_TUNABLES",
    # Windows
    "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "USERPROFILE", "USERNAME", "APPDATA", "LOCALAPPDATA",
    "PROGRAMDATA", "PROGRAMFILES*", "COMMONPROGRAMFILES*", "NUMBER_OF_PROCESSORS", "PROCESSOR_*", "OS",
)  # fmt: skip

_PYTHON = (
    "PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "PYTHONNOUSERSITE", "PYTHONUSERBASE", "PYTHONHASHSEED",
    "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX",
    "PYTHONPLATLIBDIR", "PYTHON_GIL", "PYTHON_JIT", "VIRTUAL_ENV", "CONDA_PREFIX",
)  # fmt: skip
"""Python's variables. PYTHONDEVMODE, PYTHONTRACEMALLOC, coverage's and the like are left out: they slow a worker
down."""

_ENGINES = (
    "OMP_*", "KMP_*", "GOMP_*", "MKL_*", "OPENBLAS_*", "BLIS_*", "VECLIB_*", "NUMEXPR_*", "GGML_*", "LLAMA_*", "RWKV_*",
    "TORCH_*", "TORCHINDUCTOR_*", "PYTORCH_*", "ATEN_*", "TRITON_*", "FLA_*", "WGPU_*", "RUST_BACKTRACE", "RUST_LOG",
    "RUST_MIN_STACK", "RAYON_*", "TOKIO_*",
    # what compiles rwkv's CUDA kernels (torch.utils.cpp_extension)
    "CC", "CXX", "NVCC_*", "MAX_JOBS", "NINJA_STATUS",
)  # fmt: skip

_DRIVERS = (
    "CUDA_*", "NVIDIA_*", "CUBLAS_*", "CUBLASLT_*", "CUDNN_*", "NCCL_*", "NVTE_*", "__GL_*", "__NV_*", "__VK_*",
    "__EGL_*", "VK_*", "ENABLE_VULKAN_*", "DISABLE_LAYER_*", "MESA_*", "LIBGL_*", "LP_*", "GALLIUM_*", "DRI_PRIME",
    "RADV_*", "AMD_*", "ROCM_*", "ROCR_*", "HIP_*", "HSA_*", "GPU_*", "ANV_*", "INTEL_*", "ONEAPI_*", "SYCL_*", "ZE_*",
    "MTL_*", "METAL_*", "DXVK_*", "D3D12_*", "SHADER_CACHE_*",
)  # fmt: skip

_ALLOWED = (*_SYSTEM, *_PYTHON, *_ENGINES, *_DRIVERS)


def allowed_variables(source: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of `source`, by default this process's, that a worker gets."""
    given = os.environ if source is None else source
    named = given.get(MORE_VARIABLES, "").replace(",", " ").split()
    return {
        name: value
        for name, value in given.items()
        if _matches(name, named) or (_matches(name, _ALLOWED) and not is_secret(name))
    }


def _matches(name: str, patterns: tuple[str, ...] | list[str]) -> bool:
    # Windows' names are case-insensitive, and Python gives them in capitals there.
    return any(fnmatchcase(name, pattern) for pattern in patterns)
