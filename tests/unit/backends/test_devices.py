"""One GPU under several engines' names, and engines that must not fall back in silence. No GPU is needed."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, ClassVar

import pytest
from filelock import FileLock, Timeout

from pytest_rwkvperf.backends import llama_cpp, rwkv_pip, web_rwkv
from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.engine import Device, OpenRequest, pci_address
from pytest_rwkvperf.core.errors import BackendError, DeviceError, ModelError
from pytest_rwkvperf.run.lease import hardware, lease

if TYPE_CHECKING:
    from pathlib import Path

CUDA = Device("cuda:0", "NVIDIA H200", "gpu", physical="0000:00:06.0")
VULKAN = Device("vulkan:0", "NVIDIA H200", "gpu", physical="0000:00:06.0")
OTHER = Device("cuda:1", "NVIDIA H200", "gpu", physical="0000:0a:00.0")

# What llama.cpp (src/llama-model.cpp, load_tensors) writes for 2.9b with everything on the GPU.
LOADED = """\
load_tensors: offloading output layer to GPU
load_tensors: offloading 31 repeating layers to GPU
load_tensors: offloaded 33/33 layers to GPU
load_tensors:   CPU_Mapped model buffer size =   320.00 MiB
load_tensors:        CUDA0 model buffer size =  5336.13 MiB
"""


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("00000000:00:06.0", "0000:00:06.0"),  # NVML
        ("0000:c1:00.0", "0000:c1:00.0"),  # ggml, wgpu
        ("0001:0A:00", "0001:0a:00.0"),  # torch's three numbers
        ("0a:00.1", "0000:0a:00.1"),
        ("", ""),
        (None, ""),
        ("PCI:1:0:0", ""),
    ],
)
def test_an_address_is_the_same_in_every_drivers_form(told: str | None, address: str) -> None:
    assert pci_address(told) == address


def unused(name: str, holder: str) -> None:
    """Nobody else holds these leases."""
    raise AssertionError((name, holder))


def test_two_names_of_one_gpu_share_a_lease_and_two_gpus_do_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(folders, "cache", lambda: tmp_path)
    for device in (CUDA, VULKAN, OTHER):
        with lease(device, unused):
            pass
    names = {path.name for path in (tmp_path / "leases").glob("*.lock")}
    assert names == {"0000-00-06.0.lock", "0000-0a-00.0.lock"}


def test_the_processors_lease_includes_every_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(folders, "cache", lambda: tmp_path)
    names = ["0000-00-06.0", "0000-0a-00.0", "cpu"]
    with lease(OTHER, unused):  # somebody once measured there: this run's engines need not list it
        pass
    with lease(Device("cpu", "CPU", "cpu"), unused, [hardware(CUDA)]):
        taken = [FileLock(tmp_path / "leases" / f"{name}.lock") for name in names]
        for lock in taken:
            with pytest.raises(Timeout):
                lock.acquire(timeout=0)
    with lease(CUDA, unused), lease(OTHER, unused):
        pass  # GPUs leave each other alone


def test_a_device_is_named_by_what_it_occupies() -> None:
    assert [hardware(device) for device in (CUDA, VULKAN, OTHER)] == ["0000-00-06.0"] * 2 + ["0000-0a-00.0"]
    assert hardware(Device("metal", "Apple M1", "gpu")) == "metal"
    assert hardware(Device("vulkan:0", "llvmpipe", "software")) == "cpu"


def test_rwkv_makes_a_second_gpu_torchs_current_one(no_rwkv: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """rwkv7_op.cpp has no device guard: its kernels would run on cuda:0 with addresses of cuda:1."""
    current: list[str] = []
    torch = SimpleNamespace(set_num_threads=lambda _count: None, cuda=SimpleNamespace(set_device=current.append))
    no_rwkv.setitem(sys.modules, "torch", torch)
    no_rwkv.setattr(rwkv_pip.RwkvEngine, "clear", lambda _self: None)

    class Model:
        z: ClassVar = {"head.weight": SimpleNamespace(device="cuda:1")}
        args = SimpleNamespace(vocab_size=65536)

        def __init__(self, _path: str, _strategy: str) -> None: ...

        def generate_zero_state(self) -> None: ...

    no_rwkv.setattr(rwkv_pip, "import_module", lambda _name: SimpleNamespace(RWKV=Model))
    engine = rwkv_pip.RwkvEngine(OpenRequest(tmp_path / "model.pth", "fp16", "cuda:1", 1, 512), OTHER)
    assert (current, engine.weights_device) == (["cuda:1"], "cuda:1")


def test_too_old_a_release_of_rwkv_is_refused(no_rwkv: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """0.8.30 and earlier make it within `forward`; loading the model first would take minutes."""
    no_rwkv.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=lambda _count: None))
    no_rwkv.setattr(rwkv_pip, "import_module", lambda _name: SimpleNamespace(RWKV=lambda _path, _strategy: 1 / 0))
    no_rwkv.setattr(rwkv_pip, "version", lambda _name: "0.8.28")
    with pytest.raises(BackendError, match=r"rwkv 0\.8\.28 .*: install 0\.8\.31 or later"):
        rwkv_pip.RwkvEngine(OpenRequest(tmp_path / "model.pth", "fp32", "cpu", 1, 512), OTHER)


@pytest.mark.parametrize("name", ["model.bin", "model.PTH", "model"])
def test_rwkv_loads_no_other_file_than_the_one_that_was_checked(name: str, tmp_path: Path) -> None:
    """The package takes a path without its suffix and adds `.pth`."""
    with pytest.raises(ModelError, match=rf"only files that end in \.pth; rename .*{name}$"):
        rwkv_pip.BACKEND.open(OpenRequest(tmp_path / name, "fp32", "cpu", 1, 512))


def adapter(backend: str, name: str, kind: str, address: str | None) -> SimpleNamespace:
    return SimpleNamespace(
        backend=backend, name=name, kind=kind, driver="NVIDIA", driver_info="580", pci_bus_id=address
    )


def test_web_rwkv_numbers_its_gpus_and_leaves_gl_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the binding lists them on a host with two H200s, where Gl's adapter is of kind `other` and has no address."""
    listed = [
        adapter("vulkan", "NVIDIA H200", "discrete-gpu", "0000:00:06.0"),
        adapter("vulkan", "NVIDIA H200", "discrete-gpu", "0000:00:07.0"),
        adapter("gl", "NVIDIA H200/PCIe/SSE2", "other", None),
    ]
    monkeypatch.setattr(web_rwkv, "import_module", lambda _name: SimpleNamespace(adapters=lambda: listed))
    found = web_rwkv.BACKEND.devices()
    assert [(one.id, one.kind, hardware(one)) for one in found] == [
        ("vulkan:0", "gpu", "0000-00-06.0"),
        ("vulkan:1", "gpu", "0000-00-07.0"),
    ]


def test_other_makers_adapters_and_metal_are_devices_too(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [
        adapter("vulkan", "AMD Radeon RX 7900 XTX (RADV NAVI31)", "discrete-gpu", "0000:03:00.0"),
        adapter("vulkan", "Intel(R) Arc(tm) A770 Graphics (DG2)", "discrete-gpu", "0000:07:00.0"),
        adapter("metal", "Apple M1", "integrated-gpu", None),
    ]
    monkeypatch.setattr(web_rwkv, "import_module", lambda _name: SimpleNamespace(adapters=lambda: listed))
    found = web_rwkv.BACKEND.devices()
    assert [(one.id, one.kind, one.physical) for one in found] == [
        ("vulkan:0", "gpu", "0000:03:00.0"),
        ("vulkan:1", "gpu", "0000:07:00.0"),
        ("metal:0", "gpu", ""),
    ]


def test_llama_cpp_ranks_a_software_gpu_after_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    software, cpu = Device("vulkan:0", "llvmpipe (LLVM 15.0.6, 256 bits)", "software"), Device("cpu", "CPU", "cpu")
    # ggml lists the processor last of all.
    monkeypatch.setattr(llama_cpp, "_listed", lambda: [*enumerate((software, CUDA, cpu))])
    assert llama_cpp.BACKEND.devices() == [CUDA, cpu, software]


def test_a_model_wholly_on_the_gpu_passes() -> None:
    llama_cpp.check_offload(LOADED, CUDA)


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        (LOADED.replace("33/33", "20/33"), "put 20 of 33 layers on cuda:0"),
        (LOADED.replace("CUDA0", "Vulkan0"), "no buffer for the model on cuda:0, only on cpu_mapped, vulkan0"),
        ("", "does not say how many layers"),
    ],
)
def test_a_model_that_is_not_wholly_on_the_gpu_is_refused(log: str, sentence: str) -> None:
    with pytest.raises(DeviceError, match=sentence):
        llama_cpp.check_offload(log, CUDA)


@pytest.fixture
def no_rwkv(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delitem(sys.modules, "rwkv.model", raising=False)
    monkeypatch.setenv("RWKV_CUDA_ON", "0")
    return monkeypatch


def test_kernels_are_asked_for_before_the_import(no_rwkv: pytest.MonkeyPatch) -> None:
    seen = []

    def load(_name: str) -> SimpleNamespace:
        seen.append(os.environ["RWKV_CUDA_ON"])
        return SimpleNamespace(DISABLE_CUBLAS_GEMM=False)

    no_rwkv.setattr(rwkv_pip, "import_module", load)
    for kernels in (False, True):
        rwkv_pip._import_model(kernels=kernels)
    assert seen == ["0", "1"]


def test_a_silent_fallback_of_rwkv_is_an_error(no_rwkv: pytest.MonkeyPatch) -> None:
    no_rwkv.setattr(rwkv_pip, "import_module", lambda _name: SimpleNamespace(DISABLE_CUBLAS_GEMM=True))
    with pytest.raises(BackendError, match="silently fell back from its cuBLAS kernel"):
        rwkv_pip._import_model(kernels=True)


def test_kernels_that_cannot_be_built_say_what_they_need(no_rwkv: pytest.MonkeyPatch) -> None:
    def fails(_name: str) -> SimpleNamespace:
        raise RuntimeError("Ninja is required to load C++ extensions")

    no_rwkv.setattr(rwkv_pip, "import_module", fails)
    with pytest.raises(BackendError, match=r"could not be built: Ninja is required .* they need nvcc"):
        rwkv_pip._import_model(kernels=True)
    with pytest.raises(RuntimeError):
        rwkv_pip._import_model(kernels=False)


def test_kernels_on_a_cpu_are_refused(no_rwkv: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_rwkv.setattr(rwkv_pip.RwkvPip, "devices", lambda _self: [Device("cpu", "CPU", "cpu")])
    with pytest.raises(DeviceError, match="kernels run on CUDA alone, not on cpu; ask for fp16"):
        rwkv_pip.BACKEND.open(OpenRequest(tmp_path / "model.pth", "fp16@kernels", "cpu", 1, 512))


@pytest.mark.parametrize(
    ("quant", "known"), [("fp16@kernels", True), ("fp16", True), ("fp16@fast", False), ("i8", False)]
)
def test_kernels_are_a_variant_of_a_dtype(quant: str, known: bool) -> None:  # noqa: FBT001 - a parameter
    assert rwkv_pip.BACKEND.accepts(quant) is known
    assert bool(rwkv_pip.BACKEND.announcement(quant)) is quant.endswith("@kernels")


@pytest.mark.parametrize(("size", "copied"), [(0, 0), (8, 0), (8, 7)])
def test_a_state_that_llama_cpp_did_not_copy_is_an_error(size: int, copied: int) -> None:
    """It returns 0 for whatever went wrong, the size included."""
    engine = object.__new__(llama_cpp.LlamaCppEngine)
    engine._context = None
    engine._lib = SimpleNamespace(
        llama_state_seq_get_size=lambda *_: size,
        llama_state_seq_get_data=lambda *_: copied,
        llama_state_seq_set_data=lambda *_: copied,
    )
    with pytest.raises(BackendError, match=f"copied {copied} of the state's {size} bytes"):
        engine.save_state()
    with pytest.raises(BackendError, match=f"took {copied} of a saved state's 9 bytes"):
        engine.load_state(bytes(9))
