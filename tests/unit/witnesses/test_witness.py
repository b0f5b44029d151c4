"""What all witnesses have in common: what they count of a workload, and when."""

from __future__ import annotations

import pytest

from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.measure.witnessing import suitable
from pytest_rwkvperf.witnesses import registry
from pytest_rwkvperf.witnesses.witness import CountedEngine, WitnessDefaults

CPU = Device("cpu", "CPU", "cpu")


@pytest.mark.parametrize("name", registry.WITNESSES)
def test_each_is_registered_under_its_name(name: str) -> None:
    assert registry.load(name).name == name


def test_those_of_auto_are_exact() -> None:
    """Their counts of the same code are the same."""
    assert all(registry.load(name).allowance == 0 for name in registry.CHEAP)


@pytest.mark.parametrize(
    ("workload", "part"),
    [("pp2000", "pp512"), ("pp64@d128", "pp64@d128"), ("tg128", "tg16"), ("tg4@d8", "tg4@d8")],
)
def test_a_chunk_and_some_tokens_are_counted(workload: str, part: str) -> None:
    assert str(WitnessDefaults().part(Workload.parse(workload), 512)) == part


def test_a_case_has_the_witnesses_of_its_engine() -> None:
    """And none where the engine's own tool times it."""
    case = Case("rwkv", "nano", "fp32", "cpu", 1, 512)
    assert [each.name for each in suitable(registry.WITNESSES, case, CPU)] == ["operations"]
    native = Case("rwkv", "nano", "fp32", "cpu", 1, 512, "native")
    assert suitable(registry.WITNESSES, native, CPU) == []


class Engine:
    """Notes what is called."""

    vocabulary = 7

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def __getattr__(self, name: str) -> object:
        return lambda *_arguments: self._notes.append(name)


def test_only_what_would_be_timed_is_counted() -> None:
    """From the last `synchronise` on, and of the calls that a repetition makes then."""
    notes: list[str] = []

    def counted(call: object) -> object:
        notes.append("counting")
        return call()  # type: ignore[operator]

    engine = CountedEngine(Engine(notes), counted, lambda: notes.append("restart")).as_engine()  # type: ignore[arg-type]
    engine.clear()
    engine.synchronise()
    engine.prefill((1, 2))
    engine.decode(3)
    engine.logits()
    assert notes == [
        "clear", "synchronise", "restart", "counting", "prefill", "counting", "decode", "counting", "logits",
    ]  # fmt: skip
    assert engine.vocabulary == 7
