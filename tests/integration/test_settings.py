"""Engines' own settings with the real engines: they reach it, and its answers stay right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.core.errors import BackendError
from pytest_rwkvperf.measure.process import typed
from pytest_rwkvperf.oracle import bounds, expected
from pytest_rwkvperf.oracle.agreement import Short
from pytest_rwkvperf.worker.parent import SAMPLE_SECONDS, Worker
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    from tests.integration.conftest import Engines

LLAMA = pytest.mark.engine("llama-cpp")

FIRST = hex(1 << min(os.sched_getaffinity(0))) if sys.platform == "linux" else "0x1"
"""The mask of the first processor that this process may use."""

OPEN = """
import json, os, sys
from pathlib import Path
from pytest_rwkvperf.backends.llama_cpp import BACKEND
from pytest_rwkvperf.core.engine import OpenRequest

path, quant, threads, settings = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
engine = BACKEND.open(OpenRequest(Path(path), quant, "cpu", threads, 128, settings))
engine.prefill(list(range(1, 100)))
engine.synchronise()
tasks = [int(name) for name in os.listdir("/proc/self/task")]
masks = sorted({sum(1 << cpu for cpu in os.sched_getaffinity(task)) for task in tasks})
policies = sorted({os.sched_getscheduler(task) for task in tasks})
library = engine._lib
contexts = (engine if sequences == 1 else engine.batch(sequences) for sequences in (1, 4, 200))
ubatches = [library.llama_n_ubatch(each._context) for each in contexts]
print(json.dumps({"masks": masks, "policies": policies, "ubatches": ubatches}))
"""
"""Opens a model as a worker does, and tells what became of the settings; llama.cpp's log is on stderr."""


def opened(engines: Engines, quant: str, threads: int = 2, **settings: str) -> tuple[dict[str, Any], str]:
    """What the program tells, and llama.cpp's log."""
    own = {name.replace("_", "-"): value for name, value in settings.items()}
    path = engines.file("llama-cpp", quant).path
    ended = subprocess.run(
        [sys.executable, "-c", OPEN, str(path), quant, str(threads), json.dumps(own)],
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told, ended.stderr


@LLAMA
def test_a_micro_batch_reaches_llama_cpp(engines: Engines) -> None:
    """Also a batch's context, whose calls have one token of each sequence where these are more than the chunk."""
    assert opened(engines, "f16")[0]["ubatches"] == [128, 128, 200]
    assert opened(engines, "f16", ubatch="8")[0]["ubatches"] == [8, 8, 8]


@LLAMA
def test_mmap_is_turned_off_and_on(engines: Engines) -> None:
    assert "CPU_Mapped model buffer size" in opened(engines, "f16", mmap="on")[1]
    read = opened(engines, "f16", mmap="off")[1]
    assert "CPU model buffer size" in read
    assert "CPU_Mapped" not in read


@LLAMA
def test_repacked_weights_are_turned_off(engines: Engines) -> None:
    assert "CPU_REPACK model buffer size" in opened(engines, "q4_0")[1]
    assert "CPU_REPACK model buffer size" in opened(engines, "q4_0", repack="on")[1]
    assert "CPU_REPACK" not in opened(engines, "q4_0", repack="off")[1]


@LLAMA
@pytest.mark.skipif(sys.platform != "linux", reason="affinity and policy are read from /proc")
def test_threads_take_their_mask_and_priority(engines: Engines) -> None:
    assert int(FIRST, 0) in opened(engines, "f16", cpu_mask=FIRST)[0]["masks"]
    assert os.SCHED_BATCH not in opened(engines, "f16")[0]["policies"]
    assert os.SCHED_BATCH in opened(engines, "f16", prio="-1")[0]["policies"]


@LLAMA
@pytest.mark.parametrize(
    ("quant", "settings"),
    [
        ("f16", {"ubatch": "8"}),
        ("f16", {"ubatch": "64", "mmap": "off", "flash-attn": "off"}),
        ("f16", {"flash-attn": "on", "cpu-mask": FIRST}),
        ("q4_0", {"repack": "off"}),
    ],
)
def test_answers_are_right_with_settings(engines: Engines, quant: str, settings: dict[str, str]) -> None:
    found = engines.describe("llama-cpp")
    file = engines.file("llama-cpp", quant)
    answers = expected.logits_files(file, "", deep=False, solver=WorkerTools(lambda _sentence, _share: None))
    case = replace(Case("llama-cpp", "nano", quant, "cpu", 2, 128), settings=tuple(sorted(settings.items())))
    bound = bounds.bound_for("llama-cpp", quant, found.devices[-1])
    with Worker() as worker:
        worker.open(found.location, file.path, case)
        answer = worker.request("parity", SAMPLE_SECONDS, expected=[str(answers[0])], noise=bound.relative_l2)
    assert not bounds.broken_short(typed(answer["short"], Short), bound)


@LLAMA
def test_polling_is_refused_where_openmp_waits(engines: Engines) -> None:
    found = engines.describe("llama-cpp")
    case = Case("llama-cpp", "nano", "f16", "cpu", 2, 128, settings=(("poll", "0"),))
    if "OPENMP = 1" not in found.software.build:
        pytest.skip("this build of llama.cpp has threads of its own")
    with Worker() as worker, pytest.raises(BackendError, match="which poll does not reach"):
        worker.open(found.location, engines.file("llama-cpp", "f16").path, case)


STRATEGY = """
import sys, torch
from rwkv.model import RWKV

model = RWKV(sys.argv[1].removesuffix(".pth"), "cpu fp32 *1 -> cpu bf16")
print({str(tensor.dtype) for tensor in model.z.values()})
"""


@pytest.mark.engine("rwkv")
def test_rwkv_puts_every_layer_where_a_strategy_begins(engines: Engines) -> None:
    path = engines.file("rwkv", "fp32").path
    variables = {**os.environ, **engines.describe("rwkv").backend.environment("cpu")}
    ended = subprocess.run(
        [sys.executable, "-c", STRATEGY, str(path)], capture_output=True, text=True, check=True, env=variables
    )
    assert ended.stdout.splitlines()[-1] == "{'torch.float32'}", "layers count now: let rwkv.strategy set them"
