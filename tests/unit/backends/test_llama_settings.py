"""llama.cpp's settings without llama.cpp: what is refused before it could be silently ignored."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import replace
from types import ModuleType

import pytest

from pytest_rwkvperf.backends import llama_settings
from pytest_rwkvperf.backends.llama_cpp import check_offload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.errors import BackendError, DeviceError
from tests.unit.building import CASE, CPU

GPU = Device("cuda:0", "NVIDIA H200", "gpu")
BUFFER = "load_tensors:        CUDA0 model buffer size =    30.00 MiB\n"


class NewModel(ctypes.Structure):
    """The fields of llama_model_params since 2026."""

    _fields_ = (("load_mode", ctypes.c_int), ("use_extra_bufts", ctypes.c_bool))


class OldModel(ctypes.Structure):
    """The fields of llama_model_params before."""

    _fields_ = (("use_mmap", ctypes.c_bool),)


class NewContext(ctypes.Structure):
    """The fields of llama_context_params since September 2025."""

    _fields_ = (("n_ubatch", ctypes.c_uint32), ("flash_attn_type", ctypes.c_int))


class OldContext(ctypes.Structure):
    """The fields of llama_context_params before."""

    _fields_ = (("n_ubatch", ctypes.c_uint32), ("flash_attn", ctypes.c_bool))


@pytest.fixture(autouse=True)
def binding(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for the installed binding, with its constants."""
    library = ModuleType("llama_cpp.llama_cpp")
    vars(library).update(LLAMA_LOAD_MODE_NONE=0, LLAMA_LOAD_MODE_MMAP=1)
    vars(library).update(
        {f"LLAMA_FLASH_ATTN_TYPE_{name}": n for n, name in ((0, "DISABLED"), (1, "ENABLED"), (-1, "AUTO"))}
    )
    monkeypatch.setitem(sys.modules, "llama_cpp.llama_cpp", library)
    monkeypatch.setitem(sys.modules, "llama_cpp", ModuleType("llama_cpp"))
    return library


def test_model_settings_reach_both_forms_of_the_structure() -> None:
    new, old = NewModel(load_mode=-1, use_extra_bufts=True), OldModel(use_mmap=True)
    llama_settings.apply_to_model(new, {})
    assert (new.load_mode, new.use_extra_bufts) == (-1, True)
    llama_settings.apply_to_model(new, {"mmap": "off", "repack": "off"})
    assert (new.load_mode, new.use_extra_bufts) == (0, False)
    llama_settings.apply_to_model(new, {"mmap": "on", "repack": "on"})
    assert (new.load_mode, new.use_extra_bufts) == (1, True)
    llama_settings.apply_to_model(old, {"mmap": "off"})
    assert not old.use_mmap
    with pytest.raises(BackendError, match="cannot choose repacked weights"):
        llama_settings.apply_to_model(old, {"repack": "off"})


def test_context_settings_reach_both_forms_of_the_structure() -> None:
    new, old = NewContext(n_ubatch=512, flash_attn_type=-1), OldContext(n_ubatch=512, flash_attn=False)
    llama_settings.apply_to_context(new, {})
    assert (new.n_ubatch, new.flash_attn_type) == (512, -1)
    llama_settings.apply_to_context(new, {"ubatch": "64", "flash-attn": "on"})
    assert (new.n_ubatch, new.flash_attn_type) == (64, 1)
    llama_settings.apply_to_context(old, {"flash-attn": "on"})
    assert old.flash_attn
    with pytest.raises(BackendError, match="knows no auto"):
        llama_settings.apply_to_context(old, {"flash-attn": "auto"})


@pytest.mark.parametrize(
    ("given", "threads", "told"),
    [
        ({"poll": "0"}, 2, "OpenMP's threads, which poll does not reach"),
        ({"cpu-mask": "0x1"}, 1, "with one thread this build of llama.cpp ignores cpu-mask"),
    ],
)
def test_what_an_openmp_build_ignores_is_refused(
    binding: ModuleType, given: dict[str, str], threads: int, told: str
) -> None:
    vars(binding)["llama_print_system_info"] = lambda: b"CPU : AVX2 = 1 | OPENMP = 1 | REPACK = 1 | "
    with pytest.raises(BackendError, match=told):
        llama_settings.attach_threads(None, None, given, threads)


def test_a_priority_that_the_system_refuses_is_told(binding: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    vars(binding)["llama_print_system_info"] = lambda: b"OPENMP = 1"
    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)
    with pytest.raises(BackendError, match=r"prio=2 asks for .*not permitted.*or leave prio out"):
        llama_settings.attach_threads(None, None, {"prio": "2"}, 2)


def test_without_settings_of_threads_nothing_is_touched() -> None:
    llama_settings.attach_threads(None, None, {"ubatch": "8"}, 2)


def test_settings_that_contradict_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)

    def reason(device: Device = CPU, **given: str) -> str:
        settings = tuple((name.replace("_", "-"), value) for name, value in given.items())
        return llama_settings.contradiction(replace(CASE, settings=settings), device)

    assert reason() == reason(ubatch="512") == reason(cpu_mask="0x5") == reason(GPU, n_gpu_layers="0") == ""
    assert "at most the chunk, 512 tokens" in reason(ubatch="513")
    assert "choose one with --rwkv-device" in reason(n_gpu_layers="0")
    assert "may use the processors 0x5 alone" in reason(cpu_mask="0x2")


def test_as_many_layers_as_asked_for_must_be_on_the_gpu() -> None:
    log = f"load_tensors: offloaded 2/5 layers to GPU\n{BUFFER}"
    check_offload(log, GPU, 2)
    check_offload("load_tensors: offloaded 0/5 layers to GPU\n", GPU, 0)
    check_offload(f"load_tensors: offloaded 5/5 layers to GPU\n{BUFFER}", GPU, 99)
    with pytest.raises(DeviceError, match="put 2 of 5 layers"):
        check_offload(log, GPU, 3)
    with pytest.raises(DeviceError, match="put 2 of 5 layers"):
        check_offload(log, GPU)
