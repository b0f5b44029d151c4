"""Real engines pass the parity check, and bugs planted in their files or in the NumPy engine do not.

The quick part of `benchmarks/parity`: one small model, every planted bug in the NumPy engine and one of them in each
real engine's file, through the very check that runs before a measurement. llama.cpp wants the whole vocabulary, so it
reads nano.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.backends.reference import ReferenceBatch, ReferenceEngine
from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.models import derive, synthetic
from pytest_rwkvperf.models.shapes import Shape
from pytest_rwkvperf.models.synthetic import SyntheticModel
from pytest_rwkvperf.oracle import bounds, dequantized, emulation
from pytest_rwkvperf.oracle.agreement import BATCH_LENGTHS, DEPTH, PROMPT, Batched, Deep, Short
from pytest_rwkvperf.oracle.rwkv7 import Oracle
from pytest_rwkvperf.worker import parity
from pytest_rwkvperf.worker.parent import IMPORT_SECONDS, SAMPLE_SECONDS, Worker
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    import numpy.typing as npt

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.core.engine import Engine
    from pytest_rwkvperf.models.weights import Weights

SMALL = SyntheticModel("small", Shape(4, 128, rank_w=16, rank_a=24, rank_v=8, rank_g=32, vocabulary=2048), seed=3)
NANO = synthetic.parse("synthetic:nano:3")


def _bugs() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "parity" / "bugs.py"
    spec = importlib.util.spec_from_file_location("parity_bugs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["parity_bugs"] = module
    spec.loader.exec_module(module)
    return module


bugs = _bugs()


def silent(_sentence: str, _fraction: float) -> None:
    """Progress that is not shown."""


def solved(model: Weights, folder: Path, *, deep: bool) -> list[Path]:
    """Files with the oracle's logits for weights."""
    paths = []
    for count in (PROMPT, DEPTH) if deep else (PROMPT,):
        paths.append(folder / f"{count}.npy")
        np.save(paths[-1], Oracle(model).forward(parity.tokens(model.shape.vocabulary, count)))
    return paths


@contextmanager
def opened(name: str, quant: str, path: Path, threads: int = 2) -> Iterator[Worker]:
    """A worker with a real engine open on a file, on the processor where the engine has it."""
    location = registry.BUILT_IN[name]
    backend = registry.load(location)
    with Worker(environment=backend.environment(None)) as worker:
        devices = [Device(**each) for each in worker.request("describe", IMPORT_SECONDS, location=location)["devices"]]
        device = next((each for each in devices if each.kind == "cpu"), devices[0])
        worker.open(location, path, Case(name, "planted", quant, device.id, threads, backend.standard_chunk))
        yield worker


def problem(name: str, quant: str, path: Path, wanted: list[Path]) -> str:
    """What the check finds wrong with a real engine on a file, in a worker process."""
    bound = bounds.bound_for(name, quant)
    with opened(name, quant, path) as worker:
        answer = worker.request("parity", SAMPLE_SECONDS, expected=[*map(str, wanted)], noise=bound.relative_l2)
    deep = msgspec.convert(answer["deep"], type=Deep) if answer["deep"] else None
    return bounds.broken_short(msgspec.convert(answer["short"], type=Short), bound) or (
        bounds.broken_deep(deep, bound) if deep else ""
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def written(model: Weights, folder: Path, kind: Format) -> Path:
    path = folder / f"model.{kind}"
    derive.write(model, path, kind, "planted", silent)
    return path


ON_TORCH = [pytest.param(name, marks=pytest.mark.engine(name)) for name in ("rwkv", "rwkv7-hf")]


@pytest.mark.parametrize("name", ON_TORCH)
@pytest.mark.parametrize("quant", ["fp32", "bf16", "fp16"])
def test_an_engine_on_torch_passes(name: str, quant: str, folder: Path) -> None:
    wanted = solved(SMALL, folder, deep=quant == "fp32")
    assert problem(name, quant, written(SMALL, folder, "pth"), wanted) == ""


@pytest.mark.parametrize("name", ON_TORCH)
def test_an_engine_on_torch_fails_on_a_file_with_a_planted_bug(name: str, folder: Path) -> None:
    path = written(bugs.IN_FILES["two lerps swapped"](SMALL), folder, "pth")
    assert problem(name, "fp16", path, solved(SMALL, folder, deep=False))


@pytest.mark.engine("llama-cpp")
def test_llama_cpp_passes_and_fails_on_a_file_with_a_planted_bug(folder: Path) -> None:
    wanted = solved(NANO, folder, deep=False)
    assert problem("llama-cpp", "f16", written(NANO, folder, "gguf"), wanted) == ""
    planted = written(bugs.IN_FILES["one LoRA transposed"](NANO), folder, "gguf")
    assert "relative L2" in problem("llama-cpp", "f16", planted, wanted)


@pytest.mark.engine("llama-cpp")
def test_quantized_llama_cpp_passes_only_against_its_own_weights(folder: Path) -> None:
    quantized = folder / "q4_0.gguf"
    WorkerTools(silent).quantize_gguf(written(NANO, folder, "gguf"), quantized, "q4_0")
    own = solved(dequantized.read(quantized, "gguf"), folder, deep=False)
    assert problem("llama-cpp", "q4_0", quantized, own) == ""
    assert problem("llama-cpp", "q4_0", quantized, solved(NANO, folder, deep=False))


@pytest.mark.engine("web-rwkv")
@pytest.mark.parametrize("quant", ["fp16", "int8", "nf4", "sf4@2"])
def test_web_rwkv_passes_only_against_its_own_weights(quant: str, folder: Path) -> None:
    path = written(SMALL, folder, "st")
    name = registry.load(registry.BUILT_IN["web-rwkv"]).emulation(quant)
    assert problem("web-rwkv", quant, path, solved(emulation.applied(SMALL, name), folder, deep=False)) == ""
    if quant not in {"fp16", "int8"}:  # int8 moves the logits by less than fp16's arithmetic is allowed to
        assert problem("web-rwkv", quant, path, solved(SMALL, folder, deep=False))


UNQUANTIZED = [("rwkv", "fp32"), ("rwkv", "fp16"), ("llama-cpp", "f16"), ("web-rwkv", "fp16")]


def found_by(engine: Engine, *, deep: bool) -> list[str]:
    """What the checks of the unquantized cases find wrong with an engine in this process."""
    vocabulary = SMALL.shape.vocabulary
    counts = (PROMPT, DEPTH) if deep else (PROMPT,)
    wanted = [Oracle(SMALL).forward(parity.tokens(vocabulary, count)) for count in counts]
    # A noise of 1 leaves the top token out of it: the figures alone have to show the bug.
    short = parity.short(engine, 128, wanted[0], noise=1.0)
    at_depth = parity.deep(engine, 128, wanted[1], noise=1.0) if deep else None
    cases = [bounds.bound_for(*case) for case in UNQUANTIZED]
    return [
        bounds.broken_short(short, bound) or (bounds.broken_deep(at_depth, bound) if at_depth else "")
        for bound in cases
    ]


@pytest.mark.parametrize("bug", bugs.IN_FILES)
def test_planted_file_fails_every_unquantized_case(bug: str) -> None:
    assert all(found_by(ReferenceEngine(Oracle(bugs.IN_FILES[bug](SMALL))), deep=False))


@pytest.mark.parametrize("bug", bugs.IN_ENGINES)
def test_planted_engine_fails_every_unquantized_case(bug: str) -> None:
    assert all(found_by(bugs.IN_ENGINES[bug](SMALL), deep=False))


def test_same_engine_without_a_bug_passes() -> None:
    assert found_by(ReferenceEngine(Oracle(SMALL)), deep=True) == ["", "", "", ""]


class WrongFrom(ReferenceEngine):
    """Drops a token in long calls: a kernel that is wrong for some lengths only."""

    def __init__(self, oracle: Oracle, length: int) -> None:
        super().__init__(oracle)
        self._length = length

    def prefill(self, tokens: Any) -> None:  # noqa: ANN401 - a sequence of tokens
        super().prefill(tokens[1:] if len(tokens) >= self._length else tokens)


@pytest.mark.parametrize(("length", "problem"), [(32, "prefill: "), (33, "at depth 600: ")])
def test_kernel_that_is_wrong_for_some_lengths_is_detected(length: int, problem: str) -> None:
    assert all(sentence.startswith(problem) for sentence in found_by(WrongFrom(Oracle(SMALL), length), deep=True))


class WrongDecode(ReferenceEngine):
    """Correct in prefill, wrong in generation."""

    def decode(self, token: int) -> None:
        super().decode(token ^ 1)


def test_wrong_generation_path_is_detected() -> None:
    sentences = found_by(WrongDecode(Oracle(SMALL)), deep=False)
    assert all(sentence.startswith("generation: ") for sentence in sentences)


# Batches


def batch_logits(model: Weights) -> list[npt.NDArray[np.float32]]:
    """The oracle's logits for the check of batches."""
    oracle, prompt = Oracle(model), parity.tokens(model.shape.vocabulary, BATCH_LENGTHS[-1])
    return [oracle.forward(prompt[start:stop]) for start, stop in pairwise((0, *BATCH_LENGTHS))]


def check_batches(name: str, quant: str, path: Path, model: Weights, sizes: Sequence[int]) -> None:
    """Run the check of a real engine's batches of these sizes, in one worker process."""
    wanted, bound = [path.parent / f"batch {count}.npy" for count in BATCH_LENGTHS], bounds.bound_for(name, quant)
    for path_of_logits, logits in zip(wanted, batch_logits(model), strict=True):
        np.save(path_of_logits, logits)
    with opened(name, quant, path, threads=1) as worker:
        for sequences in sizes:
            answer = worker.request(
                "batch_parity",
                SAMPLE_SECONDS,
                sequences=sequences,
                expected=[*map(str, wanted)],
                noise=bound.relative_l2,
            )
            found = msgspec.convert(answer, type=Batched)
            assert found.sequences == sequences
            assert bounds.broken_batch(found, bound) == ""


@pytest.mark.engine("llama-cpp")
@pytest.mark.parametrize("quant", ["f16", "q8_0"])
def test_llama_cpps_batches_pass_the_check_of_every_sequence(quant: str, folder: Path) -> None:
    path = written(NANO, folder, "gguf")
    if quant == "f16":
        check_batches("llama-cpp", quant, path, NANO, (2, 4, 8, 9, 2))
    else:
        quantized = folder / "quantized.gguf"
        WorkerTools(silent).quantize_gguf(path, quantized, quant)
        check_batches("llama-cpp", quant, quantized, dequantized.read(quantized, "gguf"), (2, 4, 8, 9, 2))


@pytest.mark.engine("web-rwkv")
@pytest.mark.parametrize(("quant", "sizes"), [("fp16", (2, 8, 33, 2)), ("int8", (8,))])
def test_web_rwkvs_batches_pass_the_check_of_every_sequence(quant: str, sizes: tuple[int, ...], folder: Path) -> None:
    """A step of 33 is two of the engine's, the first with the kernels for whole chunks."""
    model = emulation.applied(SMALL, registry.load(registry.BUILT_IN["web-rwkv"]).emulation(quant))
    check_batches("web-rwkv", quant, written(SMALL, folder, "st"), model, sizes)


class FaultyBatch(ReferenceBatch):
    """A right batch but for one fault of how it keeps its states."""

    def __init__(self, fault: str, oracle: Oracle, sequences: int) -> None:
        super().__init__(oracle, sequences)
        self._fault = fault
        if fault == "two sequences share a state":
            self._oracles[1] = self._oracles[0]

    def prefill(self, tokens: Sequence[Sequence[int]]) -> None:
        if self._fault == "the last one is dropped":
            tokens = [*tokens[:-1], ()]
        super().prefill(tokens)
        if self._fault == "two states are swapped" and tokens[0]:
            self._oracles[0], self._oracles[1] = self._oracles[1], self._oracles[0]

    def clear_sequence(self, sequence: int) -> None:
        if self._fault == "clearing one clears all":
            self.clear()
        elif self._fault != "clearing one does nothing":
            super().clear_sequence(sequence)


@pytest.mark.parametrize("sequences", [2, 9])
@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("", ""),
        ("two states are swapped", "prefill of sequence "),
        ("two sequences share a state", "prefill of sequence "),
        ("the last one is dropped", "prefill of sequence "),
        ("clearing one clears all", "sequence "),
        ("clearing one does nothing", "sequence "),
    ],
)
def test_a_planted_fault_of_a_batch_fails_every_unquantized_case(fault: str, problem: str, sequences: int) -> None:
    oracle = Oracle(SMALL)
    batch = FaultyBatch(fault, oracle, sequences)
    found = parity.batch(ReferenceEngine(oracle), batch, 64, batch_logits(SMALL), 1.0, random.Random(sequences))
    for case in UNQUANTIZED:
        sentence = bounds.broken_batch(found, bounds.bound_for(*case))
        assert bool(sentence) == bool(fault), sentence
        assert sentence.startswith(problem)
