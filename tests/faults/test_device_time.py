"""Recording device time: if the worker fails then, its samples are kept and the reason is reported."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.machine.cupti import DeviceTime, KernelTime
from pytest_rwkvperf.machine.watching import GpuWatch
from pytest_rwkvperf.measure.plan import run_process
from pytest_rwkvperf.measure.process import MeasuredCase, Target
from pytest_rwkvperf.worker import parent
from tests.conftest import SCRIPTED
from tests.unit.building import MODEL, make_run

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.machine.nvml import Gpu
    from pytest_rwkvperf.measure.record import ProcessRun

PREFILL, GENERATION = Workload("prefill", 50), Workload("generation", 20)
DEEP = Workload("generation", 20, 50)
GPU = Device("cuda:0", "Scripted GPU", "gpu", physical="0000:00:06.0")


class WatchedGpu(GpuWatch):
    """A GPU that NVML knows, without an energy counter."""

    def __init__(self) -> None:
        super().__init__(Device("cpu", "CPU", "cpu"))
        self.gpu = cast("Gpu", SimpleNamespace(millijoules=lambda: None))


def measured(tmp_path: Path, watch: GpuWatch, device: Device = GPU, index: int = 0, **script: str) -> ProcessRun:
    """One process of the scripted engine."""
    model = tmp_path / "model.st"
    model.touch()
    case = Case("scripted", "m", "fp16", device.id, 1, 64)
    environment = {f"SCRIPTED_{name.upper()}": value for name, value in script.items()}
    target = Target(case, "scripted_backend:BACKEND", environment, sys.executable, MODEL, model, device, (), None)
    measured = MeasuredCase(target, [make_run()] * index)
    run_process(measured, [PREFILL, GENERATION, DEEP], lambda _sentence: None, gpu=watch)
    run = measured.runs[-1]
    assert {name: len(samples) >= 3 for name, samples in run.samples.items()} == {
        "pp50": True, "tg20": True, "tg20@d50": True,
    }  # fmt: skip
    assert run.peak_rss_bytes > 0
    return run


@pytest.fixture(autouse=True)
def with_cupti(scripted_environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Put the stand-in for cupti-python on the workers' path."""
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(SCRIPTED / "with_cupti")])
    scripted_environment.setenv("PYTHONPATH", path)
    return scripted_environment


def test_each_workload_without_a_context_has_its_device_time(tmp_path: Path) -> None:
    watch = WatchedGpu()
    run = measured(tmp_path, watch)
    assert watch.unrecorded == ""
    assert {*run.device_time} == {"pp50", "tg20"}
    half = 16 * 10**8 // 2  # of sixteen tokens of 100 ms, by the scripted clock
    assert run.device_time["tg20"] == DeviceTime(
        tokens=16,
        wall_nanoseconds=16 * 10**8,
        busy_nanoseconds=half,
        kernels=2,
        copies=1,
        launches=2,
        longest=(
            KernelTime("first<int>", 1, 10**9 + 1000),
            KernelTime("second", 1, half),
            KernelTime("[copy]", 1, 1000),
        ),
    )
    assert run.device_time["pp50"].busy_nanoseconds == 50 * 2 * 10**7 // 2


@pytest.mark.parametrize(
    ("script", "seconds", "reason"),
    [
        ("refuse@activity_enable", 60, "CUPTI refused activity_enable: ERROR_INSUFFICIENT_PRIVILEGES (35); let users"),
        ("abort@activity_flush_all", 60, "the worker was ended by SIGABRT during device_time (60 s allowed)"),
        (
            "strange@cuptiActivityGetNextRecord",
            60,
            "CUPTI's records cannot be read: cuptiError: ERROR_INVALID_PARAMETER (1)",
        ),
        ("hang@get_timestamp", 1, "the worker did not finish device_time (1 s allowed)"),
    ],
)
def test_a_failed_recording_keeps_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, seconds: float, reason: str
) -> None:
    monkeypatch.setattr(parent, "DEVICE_TIME_SECONDS", seconds)
    watch = WatchedGpu()
    run = measured(tmp_path, watch, cupti=script)
    assert run.device_time == {}
    assert watch.unrecorded.startswith(f"pp50: {reason}")
    assert "\n" not in watch.unrecorded


def test_device_time_is_recorded_once_per_case_and_only_on_cuda(tmp_path: Path) -> None:
    watch = WatchedGpu()
    vulkan = Device("spare:0", "Scripted spare", "gpu")
    for device, index in ((GPU, 1), (vulkan, 0)):
        assert measured(tmp_path, watch, device, index, cupti="abort@get_timestamp").device_time == {}
    assert watch.unrecorded == ""


def test_without_cupti_python_there_is_no_device_time(tmp_path: Path, with_cupti: pytest.MonkeyPatch) -> None:
    with_cupti.setenv("PYTHONPATH", os.pathsep.join(map(str, [SCRIPTED.parents[1], SCRIPTED])))
    watch = WatchedGpu()
    assert measured(tmp_path, watch).device_time == {}
    assert watch.unrecorded == ""
