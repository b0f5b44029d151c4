"""Real engines with planted faults that make them fast and wrong: edited copies of their Python packages.

Each fault reads too little of the calls of more than 64 tokens, which the short check does not make.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.errors import ParityError
from pytest_rwkvperf.core.samples import CHECK_SEED, KNOWN_SEED
from pytest_rwkvperf.measure import plan, sampling
from pytest_rwkvperf.measure.process import MeasuredCase, Target
from pytest_rwkvperf.measure.record import ModelFacts
from pytest_rwkvperf.models import derive, synthetic
from pytest_rwkvperf.models.shapes import Shape
from pytest_rwkvperf.models.synthetic import SyntheticModel
from pytest_rwkvperf.oracle.agreement import PROMPT, Agreement, Deep
from pytest_rwkvperf.oracle.rwkv7 import Oracle
from pytest_rwkvperf.worker import protocol
from tests.integration.conftest import QUICK

if TYPE_CHECKING:
    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.weights import Weights

SMALL = SyntheticModel("small", Shape(4, 128, rank_w=16, rank_a=24, rank_v=8, rank_g=32, vocabulary=2048), seed=3)
NANO = synthetic.parse("synthetic:nano:3")
REMEMBERED = Deep(Agreement(finite=True, relative_l2=0.0, kl=0.0, top_matches=True), 0.0)
WORKLOADS = (Workload("prefill", 512), Workload("generation", 8))

FAULTS = {
    "cut": "tokens = tokens[:64]",
    "skip": "tokens = tokens[::2]",
    "only at 512": "tokens = tokens[:64] if len(tokens) == 512 else tokens",
    "reuse": "tokens = before.setdefault(len(tokens), tokens)",
    "from the fifth on": "tokens = tokens[:64] if calls >= 5 else tokens",
    "warm": "tokens = tokens[:64] if generated > 20 else tokens",
}
"""What is done to the tokens of a long call. 20 tokens are generated before the warm-up is over."""

READ = """
calls, generated, before = 0, 0, {{}}


def read(tokens):
    global calls, generated
    generated += len(tokens) == 1
    if len(tokens) > 64:
        calls += 1
        {fault}
    return tokens
"""

BINDING = """
import sys
from pathlib import Path

import planted

here = Path(__file__).parents[1]
real = next(Path(entry) for entry in sys.path if entry and Path(entry) != here and Path(entry, "llama_cpp").is_dir())
__path__[:] = [str(real / "llama_cpp")]
from llama_cpp import llama_cpp as binding

right = binding.llama_decode


def llama_decode(context, batch):
    tokens = planted.read([batch.token[index] for index in range(batch.n_tokens)])
    for index, token in enumerate(tokens):
        batch.token[index] = token
    batch.n_tokens = len(tokens)
    return right(context, batch)


binding.llama_decode = llama_decode
"""


def edited_rwkv(folder: Path) -> None:
    """A copy of the package whose `forward` reads what `planted` leaves of its tokens."""
    spec = importlib.util.find_spec("rwkv")
    assert spec is not None
    assert spec.origin is not None
    shutil.copytree(Path(spec.origin).parent, folder / "rwkv", ignore=shutil.ignore_patterns("__pycache__"))
    source = folder / "rwkv" / "model.py"
    text = source.read_text(encoding="utf-8")
    at = text.index("if type(idx) is list:", text.index("def forward(self, idx, state"))
    planted = "import planted; idx = planted.read(idx) if type(idx) is list else planted.read([idx])[0]\n            "
    source.write_text(text[:at] + planted + text[at:], encoding="utf-8")


def wrapped_llama_cpp(folder: Path) -> None:
    """A package of this name that loads the real one and gives it what `planted` leaves of a call's tokens."""
    (folder / "llama_cpp").mkdir()
    (folder / "llama_cpp" / "__init__.py").write_text(BINDING, encoding="utf-8")


ENGINES = {"rwkv": ("fp32", "pth", SMALL, edited_rwkv), "llama-cpp": ("f16", "gguf", NANO, wrapped_llama_cpp)}


def answers(model: Weights, seed: int, counts: list[int], folder: Path) -> list[Path]:
    """Files with the oracle's logits after these numbers of tokens of a seed's prompt."""
    paths = []
    for count in counts:
        paths.append(folder / f"{seed}-{count}.npy")
        np.save(paths[-1], Oracle(model).forward(protocol.token_ids(count, model.shape.vocabulary, seed)))
    return paths


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[Path], list[Path]]]:
    """By engine: a model, the short check's logits, and those of the workloads' known prompts."""
    made = {}
    for name, (_, kind, model, _) in ENGINES.items():
        folder = tmp_path_factory.mktemp(name)
        path = folder / f"model.{kind}"
        written: Format = "pth" if kind == "pth" else "gguf"
        derive.write(model, path, written, "planted", lambda _sentence, _fraction: None)
        known = [workload.tokens for workload in WORKLOADS]
        made[name] = (path, answers(model, CHECK_SEED, [PROMPT], folder), answers(model, KNOWN_SEED, known, folder))
    return made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WARMUP_SECONDS", "PROCESS_SECONDS"):
        monkeypatch.setattr(sampling, name, 1e-3)


def target(name: str, folder: Path, files: tuple[Path, list[Path], list[Path]], *, oracle: bool = True) -> Target:
    """The engine with `folder` on its path; its deep check is remembered. Without `oracle` for timed answers."""
    quant, path, short, known = ENGINES[name][0], *files
    backend = registry.load(registry.BUILT_IN[name])
    return Target(
        case=Case(name, "planted", quant, "cpu", 1, 512),
        location=registry.BUILT_IN[name],
        environment={**backend.environment("cpu"), "PYTHONPATH": str(folder)},
        python=sys.executable,
        model=ModelFacts("planted", "", 0, 0),
        path=path,
        device=Device("cpu", "CPU", "cpu"),
        expected=tuple(short),
        known_deep=REMEMBERED,
        known_answers=dict(zip(map(str, WORKLOADS), known, strict=True)) if oracle else {},
        longest=512,
    )


NAMES = [pytest.param(name, marks=pytest.mark.engine(name)) for name in ENGINES]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("oracle", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_an_engine_that_reads_everything_passes(
    *, name: str, oracle: bool, tmp_path: Path, files: dict[str, tuple[Path, list[Path], list[Path]]]
) -> None:
    ENGINES[name][-1](tmp_path)
    (tmp_path / "planted.py").write_text(READ.format(fault="pass"), encoding="utf-8")
    measured = MeasuredCase(target(name, tmp_path, files[name], oracle=oracle))
    plan.run_process(measured, WORKLOADS, lambda _sentence: None)
    (run,) = measured.runs
    assert {answer.compared_with for answer in run.answers.values()} == {"oracle" if oracle else "pieces"}
    assert [*run.answers] == ["pp512", "tg8"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_an_engine_that_reads_too_little_is_refused(
    name: str, fault: str, tmp_path: Path, files: dict[str, tuple[Path, list[Path], list[Path]]]
) -> None:
    ENGINES[name][-1](tmp_path)
    (tmp_path / "planted.py").write_text(READ.format(fault=FAULTS[fault]), encoding="utf-8")
    measured = MeasuredCase(target(name, tmp_path, files[name]))
    with pytest.raises(ParityError, match=r"pp512, timed repetition \d|a prompt of \d+ new tokens") as raised:
        plan.run_process(measured, WORKLOADS, lambda _sentence: None)
    assert "relative L2" in str(raised.value)
    assert measured.runs == []


@pytest.mark.engine("rwkv")
def test_an_edited_package_of_the_same_version_is_refused_by_the_next_run(tmp_path: Path, engine_cache: Path) -> None:
    (tmp_path / "conftest.py").write_text(QUICK, encoding="utf-8")
    edited_rwkv(tmp_path)

    def run(fault: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "planted.py").write_text(READ.format(fault=fault), encoding="utf-8")
        paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
        case = ("--rwkv-backend=rwkv", "--rwkv-quant=fp32", "--rwkv-workload=pp512", "--rwkv-threads=1")
        ends = ("--rwkv-budget=1", "--rwkv-save-baseline=append,crowded", "--rwkv-report=run.json")
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *case, *ends],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths, "XDG_CACHE_HOME": str(engine_cache)},
            capture_output=True,
            text=True,
            check=False,
        )

    right = run("pass")
    assert right.returncode == 0, right.stdout + right.stderr
    (baseline,) = (tmp_path / "baselines").glob("*-*.json")
    before = baseline.read_bytes()
    wrong = run(FAULTS["cut"])
    assert wrong.returncode == 1, wrong.stdout + wrong.stderr
    (item,) = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["cases"][0]["items"]
    assert item["verdict"] == "INVALID"
    assert "a wrong answer, so its speed counts for nothing: a prompt of 512 new tokens" in item["reason"]
    assert baseline.read_bytes() == before
