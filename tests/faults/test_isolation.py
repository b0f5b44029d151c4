"""Real engines that die or get malformed files: their tests fail with one error, and the others go on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from pytest_rwkvperf.core.errors import ModelError, WorkerDiedError
from tests.conftest import QUIET
from tests.faults.sandbox import TIMEOUT, allowed
from tests.integration.conftest import QUICK

if TYPE_CHECKING:
    from pytest_rwkvperf.worker.parent import Worker
    from tests.integration.conftest import Engines

ROOT = Path(__file__).parents[2]


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "pytest", *QUIET, "--rwkv-budget=1", "--rwkv-threads=1", *options]


def environment(engines: Engines) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "160", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(engines.cache)}


def usage_error(folder: Path, engines: Engines, *options: str) -> str:
    """The message of a run that ends with a usage error."""
    ended = subprocess.run(
        command(*options), cwd=folder, env=environment(engines), capture_output=True, text=True, check=False
    )
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    return " ".join(ended.stderr.split())


@pytest.mark.engine("llama-cpp")
def test_a_worker_killed_during_a_sample_is_noticed_at_once(engines: Engines) -> None:
    killed_at: list[float] = []

    def kill(worker: Worker) -> None:
        killed_at.append(time.monotonic())
        psutil.Process(worker.pid).kill()

    with engines.worker("llama-cpp", "f16") as worker:
        timer = threading.Timer(0.5, kill, (worker,))
        timer.start()
        with pytest.raises(WorkerDiedError, match=r"was ended by SIGKILL .*out-of-memory killer.* during sample"):
            worker.request("sample", 600, workload="tg100000")
        assert time.monotonic() - killed_at[0] < allowed(1)
    with engines.worker("llama-cpp", "f16") as worker:
        assert worker.request("sample", 60, workload="tg2")["nanoseconds"] > 0


@pytest.mark.engine("llama-cpp")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to find the worker by its model")
def test_one_engine_that_dies_fails_its_tests_alone(tmp_path: Path, engines: Engines) -> None:
    victim = engines.file("llama-cpp", "f16").path.resolve()  # as the system lists it
    engines.file("llama-cpp", "q8_0")
    (tmp_path / "conftest.py").write_text(QUICK, encoding="utf-8")
    options = command("--rwkv-backend=llama-cpp", "--rwkv-workload=pp16,tg4", "--rwkv-quant=f16,q8_0")
    with subprocess.Popen(
        options, cwd=tmp_path, env=environment(engines), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        worker = worker_with(run.pid, victim)
        worker.kill()
        text, _ = run.communicate(timeout=TIMEOUT)
    assert run.returncode == 1, text
    assert "2 failed, 2 passed" in text
    assert text.count("WorkerDiedError: the worker was ended by SIGKILL") >= 2
    assert "Traceback" not in text
    assert all(f"llama-cpp-f16-cpu-{workload}" in text for workload in ("pp16", "tg4"))


def worker_with(parent: int, model: Path) -> psutil.Process:
    """Wait for the worker that has mapped a model file."""
    limit = time.monotonic() + TIMEOUT
    while time.monotonic() < limit:
        for child in psutil.Process(parent).children():
            try:
                maps = Path(f"/proc/{child.pid}/maps").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            if str(model) in maps:
                return child
        time.sleep(0.01)
    raise AssertionError(f"no worker mapped {model}")


@pytest.mark.engine("llama-cpp")
def test_a_truncated_gguf_is_a_usage_error(tmp_path: Path, engines: Engines) -> None:
    whole = engines.file("llama-cpp", "f16")
    cut = tmp_path / "ge kürzt.gguf"
    with whole.path.open("rb") as file:
        cut.write_bytes(file.read(whole.size_bytes // 2))
    message = usage_error(tmp_path, engines, "--rwkv-backend=llama-cpp", f"--rwkv-model={cut}", "--rwkv-quant=f16")
    assert cut.name in message


@pytest.mark.parametrize(
    ("name", "quant", "suffix"),
    [
        pytest.param("llama-cpp", "f16", ".gguf", marks=pytest.mark.engine("llama-cpp")),
        pytest.param("web-rwkv", "fp16", ".st", marks=pytest.mark.engine("web-rwkv")),
        pytest.param("rwkv", "fp32", ".pth", marks=pytest.mark.engine("rwkv")),
        pytest.param("rwkv7-hf", "fp32", ".pth", marks=pytest.mark.engine("rwkv7-hf")),
    ],
)
def test_an_engine_refuses_a_truncated_file(
    tmp_path: Path, engines: Engines, name: str, quant: str, suffix: str
) -> None:
    cut = tmp_path / f"cut{suffix}"
    whole = engines.file(name, quant)
    with whole.path.open("rb") as file:
        cut.write_bytes(file.read(whole.size_bytes * 9 // 10))
    with pytest.raises(ModelError, match=r"cut\."), engines.worker(name, quant, path=cut):
        pass


@pytest.mark.engine("rwkv")
def test_a_missing_cuda_device_is_a_usage_error(tmp_path: Path, engines: Engines) -> None:
    if any(device.id == "cuda:0" for device in engines.describe("rwkv").devices):
        pytest.skip("this machine has CUDA")
    message = usage_error(tmp_path, engines, "--rwkv-backend=rwkv", "--rwkv-device=cuda:0")
    assert "--rwkv-device='cuda:0' is not a device of any engine here; there are rwkv: cpu" in message
