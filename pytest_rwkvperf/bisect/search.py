"""Which state of an ordered list made something slower, found with answers that are sometimes wrong.

A binary search that believes each answer is wrong as soon as one answer is. Here every state has a probability of being
the first slow one. The state that halves this probability is asked about, each answer shifts it by Bayes' rule with the
error rates of the answers, and the search ends when one state has more than the confidence asked for (Horstein, IEEE
Transactions on Information Theory 9, 1963; Burnashev and Zigangirov, Problems of Information Transmission 10, 1974;
Waeber, Frazier and Henderson, SIAM Journal on Control and Optimization 51, 2013). The expected number of questions is
within a constant of the best possible (Karp and Kleinberg, Noisy Binary Search and Its Applications, 2007).

With one change for the worse in the list, and answers that err independently at no more than the stated rates, the
state named is wrong with at most the probability that is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Answer = Literal["slower", "same", "skip"]
"""A state compared with the first one; `skip`: it does not build, does not run, or noise hides the answer."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How often an answer is wrong: `slower` of a state that is not, and `same` of one that is."""

    false_slower: float
    false_same: float


@dataclass(frozen=True, slots=True)
class Suspects:
    """States of which one is the first slow one; several where those before the last cannot be asked about."""

    first: int
    last: int
    probability: float


@dataclass(slots=True)
class Search:
    """The search over `count` states, of which the first is the fast one and the last is known to be slow.

    States are numbered from 0 in order. Number 0 is what all others are compared with.
    """

    count: int
    rates: Rates
    _belief: list[float] = field(init=False)
    """The probability of each state to be the first slow one."""
    _silent: set[int] = field(init=False, default_factory=set)
    """States that gave no answer. They are not asked again."""

    def __post_init__(self) -> None:
        self._belief = [0.0, *[1 / (self.count - 1)] * (self.count - 1)]

    def add(self, state: int, answer: Answer) -> None:
        """Take in an answer about a state."""
        if answer == "skip":
            self._silent.add(state)
            return
        false_slower, false_same = self.rates.false_slower, self.rates.false_same
        slow, fast = (1 - false_same, false_slower) if answer == "slower" else (false_same, 1 - false_slower)
        self._believe([belief * (slow if at <= state else fast) for at, belief in enumerate(self._belief)])

    def confirm(self, suspects: Suspects, *, slower: bool) -> None:
        """Take in the comparison of the last suspect with the state before the first one."""
        right = 1 - self.rates.false_same if slower else self.rates.false_same
        wrong = self.rates.false_slower if slower else 1 - self.rates.false_slower
        inside = range(suspects.first, suspects.last + 1)
        self._believe([belief * (right if at in inside else wrong) for at, belief in enumerate(self._belief)])

    def same_code(self, low: int, high: int) -> None:
        """Take in that two states have the same code: the change is not between them."""
        self._believe([0.0 if low < at <= high else belief for at, belief in enumerate(self._belief)])

    def _believe(self, weights: list[float]) -> None:
        """Take these weights as probabilities. Where none is left, answers contradict each other: nothing changes."""
        if total := sum(weights):
            self._belief = [weight / total for weight in weights]

    @property
    def suspects(self) -> Suspects:
        """The most probable ones: neighbours that no answer can tell apart count as one."""
        return max(self._groups(), key=lambda group: group.probability)

    def next_state(self) -> int | None:
        """The state to ask about: of those that can answer, the one that splits the belief most evenly.

        None where no answer could change which suspects there are.
        """
        askable = [group.last for group in self._groups()[:-1]]
        return min(askable, key=lambda state: abs(0.5 - sum(self._belief[: state + 1])), default=None)

    def _groups(self) -> list[Suspects]:
        """Runs of states that end with one that can be asked about; the last state always can."""
        groups: list[Suspects] = []
        first = 1
        for state in range(1, self.count):
            if state not in self._silent or state == self.count - 1:
                groups.append(Suspects(first, state, sum(self._belief[first : state + 1])))
                first = state + 1
        return groups


def expected_answers(count: int, rates: Rates) -> int:
    """About how many answers a search takes: the bits to learn over those in an answer (Karp and Kleinberg, 2007)."""
    error = max(rates.false_slower, rates.false_same)
    capacity = 1 + error * math.log2(error) + (1 - error) * math.log2(1 - error)
    return math.ceil(math.log2(max(2, count - 1)) / capacity)
