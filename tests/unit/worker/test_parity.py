"""The check drives an engine along every path that is timed; a scripted engine shows that each one counts."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.oracle import bounds
from pytest_rwkvperf.oracle.agreement import DEPTH, PROMPT
from pytest_rwkvperf.oracle.bounds import Bound
from pytest_rwkvperf.worker import parity, protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

VOCABULARY = 50
BOUND = Bound(1e-3)


class Scripted:
    """Logits are a hash of the tokens since the last clear; each fault is a switch."""

    def __init__(self, fault: str = "") -> None:
        self.vocabulary = VOCABULARY
        self.device = Device("cpu", "scripted", "cpu")
        self.calls: list[str] = []
        self._fault = fault
        self._seen: list[int] = []
        self._clears = 0

    def clear(self) -> None:
        self.calls.append("clear")
        self._clears += 1
        if self._fault != "keeps state":
            self._seen = []

    def save_state(self) -> list[int]:
        return list(self._seen)

    def load_state(self, state: list[int]) -> None:
        self._seen = list(state)

    def prefill(self, tokens: Sequence[int]) -> None:
        self.calls.append(f"prefill {len(tokens)}")
        last = tokens[-1:] if self._fault == "drops all but a chunk's last token" else tokens
        self._seen += last

    def decode(self, token: int) -> None:
        self.calls.append("decode")
        self._seen.append(token if self._fault != "decodes another token" else 1)

    def synchronise(self) -> None:
        pass

    def logits(self) -> npt.NDArray[np.float32]:
        logits = right(self._seen)
        if self._fault == "is another the third time" and self._clears >= 3:
            logits[3] += np.float32(0.01)
        if self._fault == "is not a number the third time" and self._clears >= 3:
            logits[3] = np.nan
        if self._fault == "chunks matter" and "prefill 37" in self.calls:
            logits[3] += np.float32(0.5)
        return logits


def right(tokens: Sequence[int]) -> npt.NDArray[np.float32]:
    seed = hash(tuple(tokens)) % 2**32
    return np.random.default_rng(seed).standard_normal(VOCABULARY).astype(np.float32)


def short(fault: str = "", chunk: int = 128) -> str:
    wanted = right(parity.tokens(VOCABULARY, PROMPT))
    return bounds.broken_short(parity.short(Scripted(fault), chunk, wanted, BOUND.relative_l2), BOUND)


def deep(fault: str = "", chunk: int = 128) -> str:
    wanted = right(parity.tokens(VOCABULARY, DEPTH))
    return bounds.broken_deep(parity.deep(Scripted(fault), chunk, wanted, BOUND.relative_l2), BOUND)


@pytest.mark.parametrize("chunk", [1, 8, 32, 37, 128, 512])
def test_a_right_engine_passes_with_any_chunk(chunk: int) -> None:
    assert short(chunk=chunk) == ""
    assert deep(chunk=chunk) == ""


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("keeps state", "generation: "),
        ("decodes another token", "generation: "),
        ("drops all but a chunk's last token", "prefill: "),
        ("is another the third time", "a second pass after a state clear differs"),
        ("is not a number the third time", "a second pass after a state clear gives logits that are not finite"),
    ],
)
def test_the_short_check_sees(fault: str, problem: str) -> None:
    assert short(fault).startswith(problem)


@pytest.mark.parametrize(
    ("fault", "problem"),
    [("drops all but a chunk's last token", "at depth 600: "), ("chunks matter", "another chunk size differs")],
)
def test_the_deep_check_sees(fault: str, problem: str) -> None:
    assert deep(fault).startswith(problem)


def test_the_short_check_runs_every_timed_path_and_leaves_the_state_clear() -> None:
    engine = Scripted()
    parity.short(engine, 128, right(parity.tokens(VOCABULARY, PROMPT)), 1e-3)
    generation = [f"prefill {PROMPT - parity.DECODED}", *["decode"] * parity.DECODED]
    assert engine.calls == ["clear", "prefill 32", "clear", *generation, "clear", "prefill 32", "clear"]


def test_the_deep_check_crosses_boundaries_of_the_case_s_chunks_and_of_odd_ones() -> None:
    engine = Scripted()
    parity.deep(engine, 512, right(parity.tokens(VOCABULARY, DEPTH)), 1e-3)
    odd = ["prefill 37"] * (600 // 37) + [f"prefill {600 % 37}"]
    assert engine.calls == ["clear", "prefill 512", "prefill 88", "clear", *odd, "clear"]


def test_results_are_strict_json() -> None:
    wanted = right(parity.tokens(VOCABULARY, PROMPT))
    found = parity.short(Scripted("is not a number the third time"), 128, wanted, 1e-3)
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["repeat"] == -1


def test_prompt_is_made_of_the_measured_tokens() -> None:
    assert parity.tokens(VOCABULARY, 32) == protocol.token_ids(32, VOCABULARY)
    assert 0 not in parity.tokens(VOCABULARY, DEPTH)
