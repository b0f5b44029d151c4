"""The tools' own ways of measuring with the real engines, and the real programs where this machine has built them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.core.samples import ToolResult
from pytest_rwkvperf.measure.process import typed
from pytest_rwkvperf.run.discovery import FoundEngine, discover
from pytest_rwkvperf.worker.parent import SAMPLE_SECONDS, Worker

if TYPE_CHECKING:
    from tests.integration.conftest import Engines

BUILT = {
    "llama-bench": "build/llama-bench-*/bin/llama-bench",
    "llama-batched-bench": "build/llama-batched-bench-*/bin/llama-batched-bench",
    "web-rwkv-bench": "build/web-rwkv-bench-*/bin/bench",
}
"""Where benchmarks/fidelity builds them, below the user's cache."""


@pytest.mark.engine("web-rwkv")
def test_web_rwkvs_bench(engines: Engines) -> None:
    with engines.worker("web-rwkv", "fp16") as worker:
        taken = typed(worker.request("native", SAMPLE_SECONDS, workloads=["tg2", "pp16"]), ToolResult)
    assert {name: len(samples) for name, samples in taken.samples.items()} == {"pp16": 5, "tg2": 5}
    assert taken.samples["pp16"][-1].started < taken.samples["tg2"][0].started
    assert all(len(sample.token_nanoseconds) == 2 for sample in taken.samples["tg2"])


@pytest.mark.engine("llama-cpp")
def test_llama_bench(engines: Engines) -> None:
    with engines.worker("llama-cpp", "f16") as worker:
        taken = typed(worker.request("native", SAMPLE_SECONDS, workloads=["pp16", "tg2@d8"]), ToolResult)
    assert {name: len(samples) for name, samples in taken.samples.items()} == {"pp16": 5, "tg2@d8": 5}


@pytest.mark.engine("rwkv")
def test_the_guides_chat(engines: Engines) -> None:
    """Three turns, of which two count."""
    with engines.worker("rwkv", "fp32") as worker:
        taken = typed(worker.request("native", SAMPLE_SECONDS, workloads=["tg8"]), ToolResult)
    assert [turn.tokens for turn in taken.turns] == [8, 8, 8]
    assert [one.nanoseconds for one in taken.samples["tg8"]] == [turn.nanoseconds for turn in taken.turns[1:]]
    assert all(turn.rss_bytes > 100 << 20 for turn in taken.turns)


IMPORTED = """
import sys
from pytest_rwkvperf.worker.child import Child

location, path, quant, device = sys.argv[1:]
child = Child()
child.open(location=location, path=path, quant=quant, device=device, threads=2, chunk=16, settings={})
before = set(sys.modules)
child.native(workloads=["pp16"])
print(sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize(("name", "quant"), [("web-rwkv", "fp16"), ("llama-cpp", "f16")])
def test_nothing_is_imported_while_an_unwarmed_repetition_is_timed(name: str, quant: str, engines: Engines) -> None:
    """With web-rwkv it was NumPy: 0.2 of the first repetition's 1.2 s on a GPU."""
    found = engines.describe(name)
    asked = [registry.BUILT_IN[name], engines.file(name, quant).path, quant, found.devices[0].id]
    environment = {**os.environ, **found.backend.environment(found.devices[0].id)}
    command = [sys.executable, "-c", IMPORTED, *map(str, asked)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("name", "engine", "quant", "workloads"),
    [
        ("llama-bench", "llama-cpp", "f16", ["pp16", "tg2"]),
        ("llama-batched-bench", "llama-cpp", "f16", ["pp16", "tg2", "pp16@b3", "tg2@b3", "tg2@d16@b3"]),
        ("web-rwkv-bench", "web-rwkv", "fp16", ["pp16", "tg2"]),
    ],
)
def test_the_real_program(
    name: str, engine: str, quant: str, workloads: list[str], engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    from pytest_rwkvperf.core import folders

    program = next(iter(sorted(folders.cache().glob(BUILT[name]))), None)
    if program is None:
        pytest.skip(f"{name} is not built here; benchmarks/fidelity builds it")
    chosen, named = registry.choose(f"{name}:{program}")
    (found,) = discover(chosen, named=named)
    assert isinstance(found, FoundEngine)
    device = found.devices[-1] if engine == "llama-cpp" else found.devices[0]
    with Worker() as worker:
        worker.open(found.location, engines.file(engine, quant).path, Case(name, "nano", quant, device.id, 2, 128))
        taken = typed(worker.request("native", SAMPLE_SECONDS, workloads=workloads), ToolResult)
        peak = worker.request("memory", 10)["peak_rss_bytes"]
    assert set(taken.samples) == {*workloads}
    assert all(sample.nanoseconds > 0 for samples in taken.samples.values() for sample in samples)
    assert peak > engines.file(engine, quant).path.stat().st_size / 2
