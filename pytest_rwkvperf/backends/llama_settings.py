"""llama.cpp's own settings: those that `--rwkv-set` may give a value to, and how the binding passes them on.

Numbers and words are those of llama-bench's options (tools/llama-bench/llama-bench.cpp).
"""

from __future__ import annotations

import ctypes
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.engine_settings import SWITCH, Setting
from pytest_rwkvperf.core.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.core.engine import Device

_NO_CACHE = "RWKV has no KV cache, so its type changes nothing; leave it out"

SETTINGS = (
    Setting("ubatch", "tokens of a call that are computed at once (-ub)", numbers=(1, 9_999_999)),
    Setting("flash-attn", "flash attention (-fa); RWKV-7's graph has no attention", words=("off", "on", "auto")),
    Setting("n-gpu-layers", "layers on the GPU, with the rest on the CPU (-ngl)", numbers=(0, 9999)),
    Setting("poll", "how long threads spin for work, 0 to 100 (--poll)", numbers=(0, 100)),
    Setting("prio", "scheduling priority of the threads (--prio)", numbers=(-1, 3)),
    Setting("cpu-mask", "processors of the threads (-C)", pattern="0x[1-9a-f][0-9a-f]{0,127}", example="0x3"),
    Setting("mmap", "map the file into memory instead of reading it (--mmap)", words=SWITCH),
    Setting("repack", "weights in the layout of the processor's own kernels (--repack)", words=SWITCH),
    Setting(
        "batch",
        "",
        refused="llama.cpp's batch (-b) is the chunk here: set chunk; several sequences at once are a workload's "
        "batch (tg128@b8)",
    ),
    *(Setting(name, "", refused=_NO_CACHE) for name in ("cache-type-k", "cache-type-v", "ctk", "ctv")),
)

_OF_THREADS = ("poll", "prio", "cpu-mask")
_MASK_BITS = 512  # GGML_MAX_N_THREADS, ggml/include/ggml.h
_LOAD_MODES = {"off": "NONE", "on": "MMAP"}
_FLASH_ATTENTION = {"off": "DISABLED", "on": "ENABLED", "auto": "AUTO"}


def contradiction(case: Case, device: Device) -> str:
    """Why the settings of a case mean nothing together or on a device; empty if they do."""
    given = dict(case.settings)
    ubatch, mask = int(given.get("ubatch", case.chunk)), int(given.get("cpu-mask", "0"), 0)
    if ubatch > case.chunk:
        return f"ubatch is at most the chunk, {case.chunk} tokens, which llama.cpp would compute in its place"
    if "n-gpu-layers" in given and device.kind == "cpu":
        return "layers are put on a GPU; choose one with --rwkv-device, or leave n-gpu-layers out"
    if mask and (usable := _usable_processors()) and mask & ~usable:
        return f"this process may use the processors {usable:#x} alone; leave the others out of cpu-mask"
    return ""


def _usable_processors() -> int:
    """The processors of this process as a mask; 0 where the system does not report it."""
    if not hasattr(os, "sched_getaffinity"):
        return 0
    return sum(1 << number for number in os.sched_getaffinity(0))


def apply_to_model(params: Any, settings: Mapping[str, str]) -> None:  # noqa: ANN401 - a ctypes structure
    """Set llama_model_params; releases before 2026 have `use_mmap` in the place of `load_mode`.

    Raises:
        BackendError: the installed binding lacks a setting.
    """
    library, fields = import_module("llama_cpp.llama_cpp"), _fields(params)
    if (mmap := settings.get("mmap")) is not None:
        if "load_mode" in fields:
            params.load_mode = vars(library)[f"LLAMA_LOAD_MODE_{_LOAD_MODES[mmap]}"]
        else:
            params.use_mmap = mmap == "on"
    if (repack := settings.get("repack")) is not None:
        if "use_extra_bufts" not in fields:
            raise BackendError("this llama-cpp-python cannot choose repacked weights; leave repack out, or upgrade it")
        params.use_extra_bufts = repack == "on"


def apply_to_context(params: Any, settings: Mapping[str, str]) -> None:  # noqa: ANN401 - a ctypes structure
    """Set llama_context_params, whose `n_ubatch` is the chunk.

    Raises:
        BackendError: the installed binding lacks a setting.
    """
    library, fields = import_module("llama_cpp.llama_cpp"), _fields(params)
    params.n_ubatch = int(settings.get("ubatch", params.n_ubatch))
    if (flash := settings.get("flash-attn")) is None:
        return
    if "flash_attn_type" in fields:
        params.flash_attn_type = vars(library)[f"LLAMA_FLASH_ATTN_TYPE_{_FLASH_ATTENTION[flash]}"]
    elif flash == "auto":
        raise BackendError("this llama-cpp-python turns flash-attn off and on, and knows no auto; upgrade it")
    else:
        params.flash_attn = flash == "on"


def _fields(params: Any) -> set[str]:  # noqa: ANN401 - a ctypes structure
    return {name for name, *_ in params._fields_}


class _ThreadPoolParams(ctypes.Structure):
    """struct ggml_threadpool_params, ggml/include/ggml.h."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * _MASK_BITS),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


def attach_threads(context: Any, ggml: Any, settings: Mapping[str, str], threads: int) -> Any:  # noqa: ANN401 - ctypes
    """Let a context compute with a pool of threads that has these settings; without any, with llama.cpp's own.

    Gives the pool for `attach`, None without settings.

    Raises:
        BackendError: this build or this process cannot do that.
    """
    given = {name: settings[name] for name in _OF_THREADS if name in settings}
    if not given:
        return None
    library = import_module("llama_cpp.llama_cpp")
    _check_threads(given, threads, open_mp=b"OPENMP = 1" in library.llama_print_system_info())
    params = _ThreadPoolParams()
    ggml.ggml_threadpool_params_init.argtypes = [ctypes.POINTER(_ThreadPoolParams), ctypes.c_int]
    ggml.ggml_threadpool_params_init(ctypes.byref(params), threads)
    params.poll = int(given.get("poll", params.poll))
    params.prio = int(given.get("prio", params.prio))
    mask = int(given.get("cpu-mask", "0"), 0)
    for bit in range(_MASK_BITS):
        params.cpumask[bit] = bool(mask >> bit & 1)
    pool = _function(ggml, b"ggml_threadpool_new")(ctypes.byref(params))
    if not pool:
        raise BackendError(f"llama.cpp made no pool of {threads} threads; its reason is in the worker's last lines")
    attach(context, pool)
    return pool


def attach(context: Any, pool: Any) -> None:  # noqa: ANN401 - ctypes
    """Let a further context compute with the same pool; with llama.cpp's own threads if that is None."""
    if pool is None:
        return
    library = import_module("llama_cpp.llama_cpp")
    attach_pool = library._lib.llama_attach_threadpool  # noqa: SLF001 - the binding does not declare it
    attach_pool.argtypes = [ctypes.c_void_p] * 3
    attach_pool(context, pool, pool)


def _function(ggml: Any, name: bytes) -> Any:  # noqa: ANN401 - a C function
    """A function of the CPU backend, which may be a library of its own; as llama-bench finds it."""
    for finder, arguments in (
        (ggml.ggml_backend_dev_by_type, [ctypes.c_int]),
        (ggml.ggml_backend_dev_backend_reg, [ctypes.c_void_p]),
        (ggml.ggml_backend_reg_get_proc_address, [ctypes.c_void_p, ctypes.c_char_p]),
    ):
        finder.argtypes, finder.restype = arguments, ctypes.c_void_p
    registry = ggml.ggml_backend_dev_backend_reg(ggml.ggml_backend_dev_by_type(0))  # the first CPU
    address = ggml.ggml_backend_reg_get_proc_address(registry, name)
    if not address:
        raise BackendError(f"this build of llama.cpp has no {name.decode()}; leave {', '.join(_OF_THREADS)} out")
    return ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(address)


def _check_threads(given: Mapping[str, str], threads: int, *, open_mp: bool) -> None:
    """Refuse what llama.cpp would silently ignore (ggml_graph_compute in ggml/src/ggml-cpu/ggml-cpu.c).

    Raises:
        BackendError: with what to do instead.
    """
    if open_mp and "poll" in given:
        raise BackendError(
            "this build of llama.cpp computes with OpenMP's threads, which poll does not reach; leave it out "
            "(OMP_WAIT_POLICY is OpenMP's own), or build with -DGGML_OPENMP=OFF"
        )
    if open_mp and threads == 1:
        raise BackendError(f"with one thread this build of llama.cpp ignores {' and '.join(given)}; use more, or none")
    if "cpu-mask" in given and not _usable_processors():
        raise BackendError("this system does not tell whether cpu-mask was obeyed; leave it out")
    if "prio" in given:
        _check_priority(int(given["prio"]))


def _check_priority(priority: int) -> None:
    """Take the priority as llama.cpp's threads will, and give it back; they would only warn on stderr.

    Raises:
        BackendError: the system refuses, or does not tell.
    """
    if not hasattr(os, "sched_setscheduler"):
        raise BackendError("this system does not tell whether prio was obeyed; leave it out")
    policies = {-1: (os.SCHED_BATCH, 0), 0: (os.SCHED_OTHER, 0), 1: (os.SCHED_FIFO, 40), 2: (os.SCHED_FIFO, 80)}
    policy, level = policies.get(priority, (os.SCHED_FIFO, 90))
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, policy, os.sched_param(level))
        os.sched_setscheduler(0, *before)
    except OSError as error:
        raise BackendError(
            f"this process may not have the priority that prio={priority} asks for ({error}); allow it real-time "
            "priority (CAP_SYS_NICE, ulimit -r), or leave prio out"
        ) from error
