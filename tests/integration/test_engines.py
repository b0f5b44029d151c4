"""What the protocol takes for granted, of each real engine: one state, one answer, the device that was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.core.errors import DeviceError, ModelError, OptionError
from pytest_rwkvperf.core.samples import KNOWN_SEED
from pytest_rwkvperf.run.handles import EngineSession
from pytest_rwkvperf.worker import protocol
from pytest_rwkvperf.worker.parent import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Engines

Floats = npt.NDArray[np.float32]

FLOATS = (("rwkv", "fp32"), ("llama-cpp", "f16"), ("web-rwkv", "fp16"), ("rwkv7-hf", "fp32"))
NAMES = tuple(name for name, _ in FLOATS)
# How far each may lie from rwkv fp32, relative L2: half as much again as what was seen on this model.
OTHERS = (
    ("rwkv", "bf16", 0.01),
    ("rwkv", "fp16", 0.0015),
    ("llama-cpp", "q8_0", 0.015),
    ("llama-cpp", "q5_k_m", 0.07),
    ("llama-cpp", "q4_k_m", 0.125),
    ("llama-cpp", "q4_0", 0.135),
    ("web-rwkv", "int8", 0.0055),
    ("web-rwkv", "int8@2", 0.0055),
    ("web-rwkv", "nf4", 0.155),
    ("web-rwkv", "sf4", 0.165),
    ("rwkv7-hf", "bf16", 0.01),
    ("rwkv7-hf", "fp16", 0.0015),
)
TOKENS = protocol.token_ids(64, 65536)


def engine_cases(*cases: tuple[Any, ...]) -> list[Any]:
    """Parameters, each marked with the engine that it needs."""
    names = [case[0][0] if isinstance(case[0], tuple) else case[0] for case in cases]
    return [pytest.param(*case, marks=pytest.mark.engine(name)) for name, case in zip(names, cases, strict=True)]


def distance(one: Floats, other: Floats) -> float:
    """Relative L2."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@pytest.fixture(scope="module")
def answers() -> dict[tuple[str, str], Floats]:
    """Logits after TOKENS in one call, by engine and quant, as the tests find them."""
    return {}


def answer(engines: Engines, answers: dict[tuple[str, str], Floats], name: str, quant: str) -> Floats:
    if (name, quant) not in answers:
        with engines.worker(name, quant) as worker:
            session = EngineSession(worker)
            session.prefill(TOKENS)
            answers[name, quant] = session.logits()
    return answers[name, quant]


@dataclass(frozen=True)
class Open:
    """An engine with the model open in a float type, for all tests that can share it."""

    name: str
    quant: str
    worker: Worker
    session: EngineSession


@pytest.fixture(scope="module", params=engine_cases(*[(case,) for case in FLOATS]), ids=lambda case: case[0])
def opened(request: pytest.FixtureRequest, engines: Engines) -> Iterator[Open]:
    name, quant = request.param
    with engines.worker(name, quant) as worker:
        yield Open(name, quant, worker, EngineSession(worker))


@pytest.mark.parametrize("name", engine_cases(*[(name,) for name in NAMES]))
def test_an_engine_describes_itself(engines: Engines, name: str) -> None:
    found = engines.describe(name)
    assert all(value and value != "None" for value in found.versions.values())
    assert len(found.versions) >= 2
    assert all(device.id and device.name and device.kind in {"cpu", "gpu", "software"} for device in found.devices)
    assert len({device.id for device in found.devices}) == len(found.devices)
    kinds = [device.kind == "gpu" for device in found.devices]
    assert kinds == sorted(kinds, reverse=True), "GPUs first"


def test_a_prompt_in_one_call_is_the_prompt_token_by_token_and_clear_forgets(
    opened: Open, answers: dict[tuple[str, str], Floats]
) -> None:
    session = opened.session
    session.clear()  # of what the tests before it have left
    session.prefill(TOKENS)
    whole = answers.setdefault((opened.name, opened.quant), session.logits())
    assert np.isfinite(whole).all()
    assert whole.shape == (65536,)
    assert whole.std() > 0

    session.clear()
    for token in TOKENS:
        session.decode(token)
    assert distance(session.logits(), whole) < 1e-3

    # What a state left behind would show: one token after another prompt.
    session.clear()
    session.decode(TOKENS[0])
    first = session.logits()
    session.prefill(TOKENS[:40])
    session.clear()
    session.decode(TOKENS[0])
    assert np.array_equal(session.logits(), first)
    assert distance(first, whole) > 0.1

    session.clear()
    session.prefill(TOKENS)
    assert np.array_equal(session.logits(), whole)


def test_tokens_outside_the_vocabulary_never_reach_an_engine(opened: Open) -> None:
    for wrong in (65536, -1, 1 << 40):
        with pytest.raises(OptionError, match="outside the vocabulary of 65536"):
            opened.session.decode(wrong)
        with pytest.raises(OptionError, match="outside the vocabulary of 65536"):
            opened.session.prefill([1, wrong])
    opened.session.decode(1)
    assert np.isfinite(opened.session.logits()).all()


def test_a_sample_has_sensible_times(opened: Open) -> None:
    prefill = opened.worker.request("sample", 120, workload="pp64")
    generation = opened.worker.request("sample", 120, workload="tg4@d8")
    assert 1e5 < prefill["nanoseconds"] < 6e10
    assert len(generation["token_nanoseconds"]) == 4
    assert sum(generation["token_nanoseconds"]) == generation["nanoseconds"]
    assert min(generation["token_nanoseconds"]) > 1e4


def test_at_a_depth_every_repetition_answers_as_after_all_the_tokens_before_it(opened: Open) -> None:
    """What is put back before the second one is a copy of the state that the first one found."""
    session, ids = opened.session, protocol.token_ids(56, 65536, KNOWN_SEED)
    session.clear()
    session.prefill(ids[:40])
    session.prefill(ids[40:])
    straight = session.logits()
    for workload in ("pp16@d40", "tg4@d52"):
        answers = []
        for _ in range(3):
            opened.worker.request("sample", 120, workload=workload, known=True)
            answers.append(session.logits())
            session.prefill(TOKENS)  # which a copy that shares its memory with the state would show
        assert np.array_equal(answers[0], answers[1])
        assert np.array_equal(answers[0], answers[2])
        assert distance(answers[0], straight) < 1e-3


@pytest.mark.parametrize(("name", "quant"), engine_cases(*FLOATS))
def test_a_device_that_is_not_there_is_an_error(engines: Engines, name: str, quant: str) -> None:
    found = engines.describe(name)
    there = {device.id for device in found.devices}
    file = engines.file(name, quant)
    with Worker(environment=found.backend.environment(None)) as worker:
        for device in {"cuda:7", "vulkan:9", "cpu:1", ""} - there:
            with pytest.raises(DeviceError, match=f"no (device|adapter) '{device}'"):
                worker.open(found.location, file.path, Case(name, "nano", quant, device, 2, 64))


@pytest.mark.engine(*NAMES)
def test_the_engines_agree(engines: Engines, answers: dict[tuple[str, str], Floats]) -> None:
    found = {name: answer(engines, answers, name, quant) for name, quant in FLOATS}
    distances = {pair: distance(found[pair[0]], found[pair[1]]) for pair in combinations(found, 2)}
    assert max(distances.values()) < 3e-3, distances
    assert len({int(np.argmax(logits)) for logits in found.values()}) == 1


@pytest.mark.engine("rwkv")
@pytest.mark.parametrize(("name", "quant", "bound"), engine_cases(*OTHERS))
def test_every_quant_gives_nearly_the_same_answer(
    engines: Engines, answers: dict[tuple[str, str], Floats], name: str, quant: str, bound: float
) -> None:
    logits = answer(engines, answers, name, quant)
    assert np.isfinite(logits).all()
    found = distance(logits, answer(engines, answers, "rwkv", "fp32"))
    assert 1e-5 < found < bound, f"{name} {quant}: {found:.4f}"


@pytest.mark.engine("web-rwkv")
def test_a_layer_count_leaves_the_other_layers_alone(engines: Engines, answers: dict[tuple[str, str], Floats]) -> None:
    two, all_layers, none = (answer(engines, answers, "web-rwkv", quant) for quant in ("int8@2", "int8", "fp16"))
    assert min(distance(two, all_layers), distance(two, none)) > 1e-5


@pytest.mark.engine("web-rwkv")
@pytest.mark.parametrize("quant", ["int8@99", "int8@0", "fp16@2", "int8@", "int8@x"])
def test_layer_counts_that_make_no_sense_are_refused(engines: Engines, quant: str) -> None:
    backend = engines.describe("web-rwkv").backend
    if not backend.accepts(quant):
        return
    with pytest.raises(ModelError, match="web-rwkv cannot load"), engines.worker("web-rwkv", quant):
        pass
