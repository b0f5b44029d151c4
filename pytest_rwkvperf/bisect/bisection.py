"""A bisection from the first comparison to the confirmed culprit.

1. BAD is compared with GOOD at the tolerance that the options give. Unless it is slower, the search ends here.
2. The search (`search.py`) asks about states between them. A state counts as slow when it lies beyond the middle
   between GOOD and BAD, on the logarithmic scale: a large slowdown then needs few pairs. Only the workload that shows
   it best is measured. A state that does not build, does not run or answers wrongly is left out; states with the same
   code to the byte are not measured twice.
3. The suspect is compared with the state before it. If that does not confirm it, the search goes on.
4. For the first state that answered wrongly, the state since which answers are wrong is sought.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.bisect import comparing
from pytest_rwkvperf.bisect.outcome import Outcome
from pytest_rwkvperf.bisect.search import Rates, Search
from pytest_rwkvperf.environments.build import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_rwkvperf.bisect.comparing import By
    from pytest_rwkvperf.bisect.journal import Journal
    from pytest_rwkvperf.bisect.outcome import Kind
    from pytest_rwkvperf.bisect.search import Suspects
    from pytest_rwkvperf.bisect.states import Prepared, State

RATES: dict[By, Rates] = {"time": Rates(0.02, 0.02), "instructions": Rates(1e-6, 1e-6)}
"""Error rates of a step. They are small: a build takes as long as some pairs, so few sure answers are cheaper than many
unsure ones. Counts are right or wrong for other reasons than chance."""

COUNTING = ("--rwkv-model=synthetic:nano", "--rwkv-budget=1", "--rwkv-witness=instructions")
"""Options of a step that counts: the smallest model runs the same code, and times are of no interest."""

SURE_ENOUGH = 0.9
"""The probability at which a suspect is compared with the state before it."""

MOST_STEPS = 60
"""Far more than a search takes; answers that contradict each other for ever end there."""

_RIGHT: frozenset[Kind] = frozenset({"slower", "same", "undecided", "identical"})
"""Kinds of outcomes of states that answered rightly."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is searched for, and with what."""

    states: Sequence[State]
    backend: str
    options: Sequence[str]
    """Options of pytest for every comparison."""
    confidence: float
    by: By = "time"
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that compilers and build back ends read: part of every build."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a bisection found."""

    states: Sequence[State]
    steps: tuple[Outcome, ...]
    """In the order in which they were asked for."""
    suspects: Suspects | None = None
    """The states of which one is the first slow one; None where BAD is not slower, or cannot be measured."""
    confirmed: bool = False
    """Whether the last suspect is slower than the state before the first one, by a comparison of its own."""
    wrong_since: tuple[int, int] | None = None
    """The last state seen to answer rightly before wrong answers, and the first one seen to answer wrongly."""
    flags: tuple[str, ...] = ()

    @property
    def first(self) -> Outcome:
        """The comparison of BAD with GOOD."""
        return self.steps[0]


@dataclass(slots=True)
class Bisection:
    """One search. `say` shows progress; `on_step` is called with each step as it ends."""

    request: Request
    journal: Journal
    say: Callable[[str], None]
    on_step: Callable[[Outcome], None]
    _steps: list[Outcome] = field(default_factory=list)
    _prepared: dict[str, Prepared] = field(default_factory=dict)
    _digests: dict[str, int] = field(default_factory=dict)
    """The first state that was built with each digest of the code."""
    _noted: set[int] = field(default_factory=set)
    """States that the search knows to have the code of another one; asked about again, they are measured."""

    def run(self) -> Result:
        """Search to the end.

        Raises:
            OldStateError: GOOD cannot be measured.
            RwkvPerfError: this machine cannot build at all, or its disk is full; `--resume` goes on from here.
        """
        states, good = self.request.states, self._prepare_good()
        comparing.check_old(good, self.request.backend, self.request.options)
        bad = len(states) - 1
        first = self._ask(None, bad, self.request.options)
        if first.kind != "slower":
            wrong = self._wrong_since(bad) if first.kind == "invalid" else None
            return Result(states, tuple(self._steps), wrong_since=wrong, flags=good.flags)
        search = Search(len(states), RATES[self.request.by])
        suspects, confirmed = self._search(search, [*self.request.options, *_focused(first, RATES[self.request.by])])
        wrong_ones = [at for at in range(1, bad) if "invalid" in self._kinds(at)]
        since = self._wrong_since(wrong_ones[0]) if wrong_ones else None
        return Result(states, tuple(self._steps), suspects, confirmed, since, good.flags)

    def _search(self, search: Search, options: Sequence[str]) -> tuple[Suspects, bool]:
        """Ask until one suspect is sure and confirmed, or no answer helps; the suspects, and whether confirmed."""
        for _ in range(MOST_STEPS):
            suspects, state = search.suspects, search.next_state()
            if suspects.probability < SURE_ENOUGH and state is not None:
                self._ask(search, state, options)
                continue
            confirmed = self._compare(suspects.last, suspects.first - 1, options).kind
            if confirmed == "no-base":
                self._ask(search, suspects.first - 1, options)
                continue
            if confirmed in ("slower", "same"):
                search.confirm(suspects, slower=confirmed == "slower")
            if confirmed == "slower" and search.suspects.probability >= self.request.confidence:
                return search.suspects, True
            if state is None:
                break
        return search.suspects, False

    def _ask(self, search: Search | None, state: int, options: Sequence[str]) -> Outcome:
        """Compare a state with GOOD, unless it has the code of one that is known, and tell the search."""
        outcome = self._compare(state, 0, options)
        if outcome.digest:
            known = self._digests.setdefault(outcome.digest, state)
            if search is not None and known != state:
                search.same_code(*sorted((known, state)))
                self._noted.add(state)
        if search is not None and outcome.kind != "identical":
            search.add(state, outcome.kind if outcome.kind in ("slower", "same") else "skip")
        return outcome

    def _compare(self, state: int, against: int, options: Sequence[str]) -> Outcome:
        names = self.request.states[state].name, self.request.states[against].name
        outcome = self.journal.outcome(*names, lambda: self._measure(state, against, options))
        self._steps.append(outcome)
        self.on_step(outcome)
        return outcome

    def _measure(self, state: int, against: int, options: Sequence[str]) -> Outcome:
        """Build both states and measure them, unless the first has the code of one that was measured."""
        new, old = self.request.states[state], self.request.states[against]
        try:
            built = self._prepare(new)
        except BuildError as error:
            return Outcome(new.name, old.name, "unbuildable", str(error).splitlines()[0])
        known = self._digests.get(built.digest, state) if against == 0 else state
        if known != state and state not in self._noted:
            reason = f"the same code as {self.request.states[known].label}"
            return _of_build(Outcome(new.name, old.name, "identical", reason), built)
        self.say(f"measuring {new.label} in alternation with {old.label}")
        try:
            outcome = comparing.compare(built, self._prepare(old), self.request.backend, options, self.request.by)
        except (BuildError, comparing.OldStateError) as error:
            if against == 0:
                raise
            outcome = Outcome("", "", "no-base", str(error).splitlines()[0])
        return _of_build(replace(outcome, state=new.name, against=old.name), built)

    def _prepare(self, state: State) -> Prepared:
        if state.name not in self._prepared:
            self._prepared[state.name] = state.prepare(self.say)
        return self._prepared[state.name]

    def _prepare_good(self) -> Prepared:
        try:
            prepared = self._prepare(self.request.states[0])
        except BuildError as error:
            raise comparing.OldStateError(str(error)) from error
        if prepared.digest:
            self._digests[prepared.digest] = 0
        return prepared

    def _outcomes(self, state: int) -> list[Outcome]:
        """What was found of a state so far."""
        return [step for step in self._steps if step.state == self.request.states[state].name]

    def _kinds(self, state: int) -> set[Kind]:
        return {outcome.kind for outcome in self._outcomes(state)}

    def _wrong_since(self, wrong: int) -> tuple[int, int]:
        """The neighbours between which answers became wrong: the last state that answered rightly, and the next one.

        A state's answers are right or wrong without chance, so this is a plain binary search.
        """
        right = max((at for at in range(wrong) if self._kinds(at) & _RIGHT), default=0)
        left_out: set[int] = set()
        quick = [*self.request.options, "--rwkv-budget=1"]
        while rest := [at for at in range(right + 1, wrong) if at not in left_out]:
            middle = rest[len(rest) // 2]
            outcome = next(iter(self._outcomes(middle)), None) or self._compare(middle, 0, quick)
            if outcome.kind == "invalid":
                wrong = middle
            elif outcome.kind in ("unbuildable", "broken"):
                left_out.add(middle)
            else:
                right = middle
        return right, wrong


def _of_build(outcome: Outcome, built: Prepared) -> Outcome:
    return replace(outcome, build_seconds=built.seconds, notes=built.notes, digest=built.digest)


def _focused(first: Outcome, errors: Rates) -> list[str]:
    """The options of a step: the workload that shows the slowdown best, and the middle of it as the tolerance."""
    worst = min((each for each in first.figures if each.verdict == "REGRESSION"), key=lambda each: each.ratio)
    middle = math.exp(-math.log(worst.ratio) / 2) - 1
    rates = f"--rwkv-false-alarms={errors.false_slower:f}", f"--rwkv-wrong-pass={errors.false_same:f}"
    return [
        f"--rwkv-workload={worst.workload}",
        f"--rwkv-quant={worst.quant}",
        f"--rwkv-tolerance={middle:.6f}",
        *rates,
    ]
