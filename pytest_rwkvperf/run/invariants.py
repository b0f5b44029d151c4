"""The tests of invariants: which ones a test gets, and what its fixture gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core import invariants
from pytest_rwkvperf.core.cases import disambiguated
from pytest_rwkvperf.core.invariants import Invariant
from pytest_rwkvperf.run.discovery import MissingEngine
from pytest_rwkvperf.run.fixtures import INVARIANT_PROPERTY, keep_verdict
from pytest_rwkvperf.run.handles import clean_failure
from pytest_rwkvperf.verdict.invariants import describe, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.core.invariants import InvariantQuestion, Lengths
    from pytest_rwkvperf.run.selection import Request
    from pytest_rwkvperf.run.session import Session
    from pytest_rwkvperf.run.settings import Settings
    from pytest_rwkvperf.verdict.invariants import JudgedInvariant

Parameter = tuple["Case", Invariant]
"""A case, and what is asked about it."""


class InvariantCheck:
    """An invariant of a case to measure and to judge."""

    def __init__(self, session: Session, request: pytest.FixtureRequest, question: InvariantQuestion) -> None:
        self.question = question
        self._session = session
        self._request = request

    def check(self) -> JudgedInvariant:
        """Whether the invariant holds, from this run alone.

        Fails the test when it is broken, when a figure is invalid, and under `--rwkv-strict=inconclusive` when noise
        hides the answer.
        """
        with clean_failure():
            judged = self._session.judge_invariant(self.question)
        keep_verdict(self._request.node, INVARIANT_PROPERTY, to_json(judged))
        if fails(judged, self._session.settings):
            pytest.fail(describe(judged), pytrace=False)
        return judged


def fails(judged: JudgedInvariant, settings: Settings) -> bool:
    """Whether a verdict fails its test."""
    return judged.verdict in ("BROKEN", "INVALID") or judged.verdict.lower() in settings.strict


def parameters(session: Session, request: Request, only: str | None) -> list[Parameter | MissingEngine]:
    """Each case that the options and a test's marker choose with each invariant, and the missing engines.

    Raises:
        OptionError: the marker asks for something unknown.
    """
    found = session.engines.items(request, only)
    cases = dict.fromkeys(each.case for each in found if not isinstance(each, MissingEngine))
    missing = [each for each in found if isinstance(each, MissingEngine)]
    uniform = [case for case in cases if case.protocol == "uniform"]
    return [*((case, each) for case in uniform for each in invariants.all_of(lengths_of(session, case))), *missing]


def ids(given: Sequence[Parameter | MissingEngine]) -> list[str]:
    """The ids of a test's parameters."""
    shown = disambiguated(each[0] for each in given if not isinstance(each, MissingEngine))
    return [
        each.name if isinstance(each, MissingEngine) else f"{shown[each[0]].label}-{each[1].name}" for each in given
    ]


def lengths_of(session: Session, case: Case) -> Lengths:
    """How many tokens the device of a case is likely to manage."""
    return invariants.lengths_for(session.engines.device(case).kind, session.model.shape.token_parameters)


def notes(session: Session, cases: Iterable[Case]) -> list[str]:
    """Of each case that is asked about shorter contexts than usual, that it is."""
    usual = invariants.LENGTHS[0]
    reduced = {case: lengths for case in cases if (lengths := lengths_of(session, case)) != usual}
    return [
        f"{session.selected.labels[case]}: invariants after {lengths.depth} tokens of context in place of "
        f"{usual.depth}, with prompts of {lengths.prompt} and {2 * lengths.prompt} tokens: more would take too "
        "long here"
        for case, lengths in reduced.items()
    ]
