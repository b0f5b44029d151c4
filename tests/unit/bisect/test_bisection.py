"""Whole bisections over states that are built and measured in no time."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.bisect import comparing, report
from pytest_rwkvperf.bisect.bisection import Bisection, Request, Result
from pytest_rwkvperf.bisect.journal import Journal
from pytest_rwkvperf.bisect.outcome import Figures, Outcome
from pytest_rwkvperf.bisect.states import Prepared
from pytest_rwkvperf.environments.build import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_rwkvperf.bisect.states import State

COUNT = 24


@dataclass(frozen=True)
class Made:
    """A state of a history whose faults are known."""

    name: str
    history: History

    @property
    def label(self) -> str:
        return f"commit {self.name}"

    def prepare(self, say: Callable[[str], None]) -> Prepared:
        say(f"building {self.name}")
        self.history.built.append(int(self.name))
        if int(self.name) in self.history.unbuildable:
            raise BuildError(f"{self.name} does not build: expected ';'")
        digest = self.history.digests.get(int(self.name), self.name)
        return Prepared("python", (f"--rwkv-new={self.name}",), self.name, digest=digest, seconds=60.0)

    def command(self, older: State, options: str) -> str:
        return f"rwkvperf ab {older.name} {self.name} -- {options}"


@dataclass
class History:
    """States from `slow` on are slower, and those in the sets fail."""

    slow: int
    unbuildable: set[int] = field(default_factory=set)
    invalid: set[int] = field(default_factory=set)
    digests: dict[int, str] = field(default_factory=dict)
    wrong_answers: list[int] = field(default_factory=list)
    """Questions, by their number, that are answered wrongly."""
    built: list[int] = field(default_factory=list)
    asked: list[tuple[int, int]] = field(default_factory=list)
    options: list[Sequence[str]] = field(default_factory=list)

    @property
    def states(self) -> list[Made]:
        return [Made(str(at), self) for at in range(COUNT)]

    def compare(self, new: Prepared, old: Prepared, _backend: str, options: Sequence[str], _by: str) -> Outcome:
        at, against = int(new.as_old), int(old.as_old)
        self.asked.append((at, against))
        self.options.append(options)
        if against in self.invalid:
            raise comparing.OldStateError(f"{against}: wrong answer")
        if at in self.invalid:
            return Outcome("", "", "invalid", "a wrong answer")
        slower = (at >= self.slow > against) != (len(self.asked) in self.wrong_answers)
        figures = Figures("q8_0", "tg128", "REGRESSION" if slower else "PASS", 0.64 if slower else 1.0, 0.6, 1.1)
        return Outcome("", "", "slower" if slower else "same", figures=(figures,), pairs=4)

    def search(self, path: Path, *, resume: bool = False) -> tuple[Result, Request]:
        request = Request(self.states, "llama-cpp", ("--rwkv-quant=q8_0",), 0.95)
        bisection = Bisection(request, Journal.open(path, resume=resume), lambda _: None, lambda _: None)
        return bisection.run(), request


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[History], Result]:
    monkeypatch.setattr(comparing, "check_old", lambda *_: None)

    def run(history: History, *, resume: bool = False) -> Result:
        monkeypatch.setattr(comparing, "compare", history.compare)
        return history.search(tmp_path / "j.jsonl", resume=resume)[0]

    return run


def named(result: Result) -> tuple[int, int, bool]:
    assert result.suspects is not None
    return result.suspects.first, result.suspects.last, result.confirmed


@pytest.mark.parametrize("slow", range(1, COUNT))
def test_every_culprit_is_found_and_confirmed(searched: Callable[[History], Result], slow: int) -> None:
    history = History(slow)
    result = searched(history)
    assert named(result) == (slow, slow, True)
    assert (slow, slow - 1) in history.asked
    assert len(history.asked) <= 8


def test_a_step_measures_what_shows_the_slowdown_at_the_middle_of_it(searched: Callable[[History], Result]) -> None:
    history = History(9)
    searched(history)
    assert history.options[0] == ("--rwkv-quant=q8_0",)
    assert "--rwkv-workload=tg128" in history.options[1]
    assert "--rwkv-tolerance=0.250000" in history.options[1]  # 0.8 is the middle between 0.64 and 1


def test_a_wrong_answer_is_overcome(searched: Callable[[History], Result]) -> None:
    for wrong in range(2, 7):
        assert named(searched(History(9, wrong_answers=[wrong]))) == (9, 9, True)


def test_nothing_is_searched_where_the_newest_is_as_fast(searched: Callable[[History], Result]) -> None:
    history = History(COUNT)
    result = searched(history)
    assert result.suspects is None
    assert history.asked == [(COUNT - 1, 0)]


def test_what_does_not_build_or_answers_wrongly_is_left_out_and_told(searched: Callable[[History], Result]) -> None:
    source = random.Random(3)
    for _ in range(30):
        slow = source.randint(3, COUNT - 2)
        unbuildable, invalid = set(source.sample(range(1, COUNT - 1), 4)), {slow - 1}
        result = searched(History(slow, unbuildable - invalid, invalid))
        first, last, confirmed = named(result)
        assert first <= slow <= last
        assert confirmed
        if any(step.kind == "invalid" for step in result.steps):
            assert result.wrong_since is not None
            assert result.wrong_since[1] == slow - 1


def test_wrong_answers_of_the_newest_are_a_finding_of_their_own(searched: Callable[[History], Result]) -> None:
    result = searched(History(COUNT, unbuildable={11}, invalid=set(range(12, COUNT))))
    assert result.suspects is None
    assert result.wrong_since == (10, 12)


def test_the_same_code_is_not_measured_twice(searched: Callable[[History], Result]) -> None:
    history = History(9, digests={at: "before" if at < 9 else "after" for at in range(COUNT)})
    result = searched(history)
    assert named(result) == (9, 9, True)
    assert history.asked == [(COUNT - 1, 0), (9, 8)]


def test_a_search_that_was_interrupted_goes_on(tmp_path: Path, searched: Callable[[History], Result]) -> None:
    whole = searched(History(9))
    lines = (tmp_path / "j.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "j.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:30])
    history = History(9)
    again = searched(history, resume=True)  # type: ignore[call-arg]
    assert again == whole or again.steps == whole.steps
    assert len(history.asked) == len(lines) - 3


def test_the_oldest_must_be_measurable(searched: Callable[[History], Result]) -> None:
    with pytest.raises(comparing.OldStateError):
        searched(History(9, unbuildable={0}))


def test_the_report_names_the_culprit_and_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "check_old", lambda *_: None)
    history = History(9, unbuildable={8}, invalid={5})
    monkeypatch.setattr(comparing, "compare", history.compare)
    result, request = history.search(tmp_path / "j.jsonl")
    for rendered in (report.text(result, request), report.markdown(result, request)):
        assert "commit 9 is slower (or one of those that could not be measured: commit 8); commit 7 is not." in rendered
        assert "rwkvperf ab 7 9 -- --rwkv-quant=q8_0" in rendered
    assert '"first_slow": [\n  "8",\n  "9"\n ]' in report.to_json(result, request)
    told = replace(request, variables={"CXX": "clang++", "CMAKE_ARGS": "-DGGML_NATIVE=OFF -DGGML_AVX2=ON"})
    for rendered in (report.text(result, told), report.markdown(result, told)):
        for states in ("0 23", "7 9"):
            assert f"\nCMAKE_ARGS='-DGGML_NATIVE=OFF -DGGML_AVX2=ON' CXX=clang++ rwkvperf ab {states} -- " in rendered
