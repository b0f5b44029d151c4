"""What only a GPU shows: where engines really run, what the driver tells meanwhile, and that answers are right."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from pytest_rwkvperf.core.samples import KNOWN_SEED
from pytest_rwkvperf.machine import nvml
from pytest_rwkvperf.machine.cupti import DeviceTime
from pytest_rwkvperf.machine.watching import GpuWatch
from pytest_rwkvperf.measure.process import typed
from pytest_rwkvperf.oracle import bounds, expected
from pytest_rwkvperf.oracle.agreement import Short
from pytest_rwkvperf.run.handles import EngineSession
from pytest_rwkvperf.worker import protocol
from pytest_rwkvperf.worker.parent import DEVICE_TIME_SECONDS, IMPORT_SECONDS, SAMPLE_SECONDS, Worker
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    from pytest_rwkvperf.core.engine import Device
    from tests.integration.conftest import Engines

pytestmark = pytest.mark.gpu

CASES = [
    pytest.param("rwkv", "fp16", marks=pytest.mark.engine("rwkv")),
    pytest.param("rwkv", "fp16@kernels", marks=pytest.mark.engine("rwkv")),
    pytest.param("llama-cpp", "f16", marks=pytest.mark.engine("llama-cpp")),
    pytest.param("web-rwkv", "fp16", marks=pytest.mark.engine("web-rwkv")),
]

SAME_DEPTH = 1e-2
"""Of the logits' norm. A context that lacks one of its 256 tokens moves them by 0.043, one with 64 too many by 0.13;
what fp16 rounds in another order (on an H200 torch fuses all but the first runs) by 0.001."""


def gpu_of(engines: Engines, name: str) -> Device:
    """The engine's best GPU; a build for the CPU alone has none."""
    device = engines.describe(name).devices[0]
    if device.kind != "gpu":
        pytest.skip(f"{name} is built without a GPU; for llama-cpp: make setup-cuda")
    return device


@pytest.mark.engine("rwkv", "llama-cpp", "web-rwkv")
def test_every_engine_names_hardware_that_the_driver_knows(engines: Engines) -> None:
    devices = [gpu_of(engines, name) for name in ("rwkv", "llama-cpp", "web-rwkv")]
    with nvml.gpus() as there:
        known = {gpu.address for gpu in there}
    assert {device.physical for device in devices} <= known
    assert all(device.physical for device in devices)


@pytest.mark.parametrize(("name", "quant"), CASES)
def test_an_engine_is_right_on_the_gpu_and_its_memory_is_its_own(engines: Engines, name: str, quant: str) -> None:
    device = gpu_of(engines, name)
    file = engines.file(name, quant)
    wanted = expected.logits_files(file, "", deep=False, solver=WorkerTools(lambda _sentence, _fraction: None))
    bound = bounds.bound_for(name, quant, device)
    with GpuWatch(device) as watch, engines.worker(name, quant, device=device.id) as worker:
        files = [str(path) for path in wanted]
        found = worker.request("parity", SAMPLE_SECONDS, expected=files, noise=bound.relative_l2)
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert worker.request("sample", SAMPLE_SECONDS, workload="tg16")["nanoseconds"] > 0
        conditions = watch.conditions()
    assert bounds.broken_short(msgspec.convert(found["short"], type=Short), bound) == ""
    assert conditions is not None
    assert not any(one.foreign for one in conditions.readings if one.own_bytes)
    assert conditions.peak_bytes is not None
    assert conditions.peak_bytes > file.size_bytes // 2


@pytest.mark.parametrize(("name", "quant"), CASES)
def test_a_depth_is_the_same_one_every_time_whatever_an_engine_computes_in_place(
    engines: Engines, name: str, quant: str
) -> None:
    """Rwkv's kernels write into the state that they are given, which its operations on a CPU do not."""
    ids = protocol.token_ids(320, 65536, KNOWN_SEED)
    with engines.worker(name, quant, device=gpu_of(engines, name).id) as worker:
        session = EngineSession(worker)
        session.prefill(ids[:256])
        session.prefill(ids[256:])
        straight = session.logits()
        for _ in range(3):
            worker.request("sample", SAMPLE_SECONDS, workload="pp64@d256", known=True)
            assert np.linalg.norm(session.logits() - straight) < SAME_DEPTH * np.linalg.norm(straight)
            session.prefill(ids)


@pytest.mark.parametrize(("name", "quant"), CASES[:3])
def test_cupti_sees_an_engines_kernels_and_in_a_token_as_many_each_time(
    engines: Engines, name: str, quant: str
) -> None:
    device = gpu_of(engines, name)
    with engines.worker(name, quant, device=device.id) as worker:
        answers = [
            worker.request("device_time", DEVICE_TIME_SECONDS, workload=workload, settling=2)
            for workload in ("pp64", "tg16", "tg16")
        ]
        after = worker.request("sample", SAMPLE_SECONDS, workload="tg16")
    if None in answers:
        pytest.skip("cupti-python is not installed: pip install cupti-python")
    prefill, one, other = (typed(answer, DeviceTime) for answer in answers)
    assert prefill.kernels > 0
    assert one.kernels == other.kernels > 16 * 4, "each of nano's four layers has kernels of its own"
    assert one.busy_nanoseconds < one.wall_nanoseconds
    assert one.longest[0].nanoseconds > 0
    assert after["nanoseconds"] > 0


@pytest.mark.engine("rwkv")
def test_what_the_device_can_reach(engines: Engines) -> None:
    device = gpu_of(engines, "rwkv")
    with Worker() as worker:
        told = worker.request("ceilings", IMPORT_SECONDS, address=device.physical)
    assert told["copy_bytes_per_second"] > 1e10
    assert set(told["product_per_second"]) == {"fp16", "bf16", "tf32", "fp32"}
    assert all(rate > told["copy_bytes_per_second"] for rate in told["product_per_second"].values())
