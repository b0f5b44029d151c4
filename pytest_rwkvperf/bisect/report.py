"""A bisection's result as text, as JSON, and as markdown to paste into an issue."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.bisect.bisection import Request, Result
    from pytest_rwkvperf.bisect.outcome import Outcome
    from pytest_rwkvperf.bisect.states import State

_WORDS = {
    "slower": "slower",
    "same": "not slower",
    "identical": "not measured",
    "invalid": "WRONG ANSWERS",
    "unbuildable": "does not build",
    "broken": "does not run",
    "undecided": "no answer",
    "no-base": "not compared",
}


def step_line(outcome: Outcome, states: Sequence[State]) -> str:
    """One step, as it is printed when it ends."""
    seconds = f"{outcome.build_seconds:.0f} s to build, {outcome.seconds:.0f} s to measure"
    notes = "".join(f"; {note}" for note in outcome.notes)
    return f"{_label(outcome.state, states)}: {_WORDS[outcome.kind]}: {outcome} ({seconds}{notes})"


def text(result: Result, request: Request) -> str:
    """The result in a few sentences."""
    return "\n".join([*_finding(result), *_wrong(result), "To measure again:", *_again(result, request)]) + "\n"


def to_json(result: Result, request: Request) -> str:
    """Everything: states, steps in order, suspects with their probability, and the flags of the builds."""
    suspects = result.suspects
    raw: dict[str, Any] = {
        "states": [{"name": state.name, "label": state.label} for state in result.states],
        "options": list(request.options),
        "confidence": request.confidence,
        "by": request.by,
        "variables": dict(request.variables),
        "slower": result.first.kind == "slower",
        "first_slow": [state.name for state in _suspected(result)],
        "probability": suspects.probability if suspects else None,
        "confirmed": result.confirmed,
        "wrong_since": [result.states[at].name for at in result.wrong_since] if result.wrong_since else None,
        "flags": list(result.flags),
        "steps": [asdict(step) for step in result.steps],
    }
    return json.dumps(raw, indent=1) + "\n"


def markdown(result: Result, request: Request) -> str:
    """For an issue: the finding, each step, and the commands that show it again."""
    rows = [
        f"| {_label(step.state, result.states)} | {_label(step.against, result.states)} | {_WORDS[step.kind]} | {step} "
        f"| {step.pairs or ''} | {step.build_seconds:.0f} | {step.seconds:.0f} |"
        for step in result.steps
    ]
    table = [
        "| state | compared with | | | pairs | s to build | s to measure |",
        "|---|---|---|---|--:|--:|--:|",
        *rows,
    ]
    flags = [f"Built with `{' '.join(result.flags)}`.", ""] if result.flags else []
    again = ["To measure again:", "", "```sh", *_again(result, request), "```"]
    return "\n".join([*_finding(result), *_wrong(result), "", *table, "", *flags, *again, ""])


def _finding(result: Result) -> list[str]:
    good, bad, first = result.states[0], result.states[-1], result.first
    if result.suspects is None:
        why = {
            "same": f"{bad.label} is not slower than {good.label}: {first}.",
            "identical": f"{bad.label} has the same code as {good.label}.",
            "invalid": f"{bad.label} gives wrong answers, so its speed counts for nothing: {first}",
        }
        return [why.get(first.kind, f"{bad.label} could not be compared with {good.label}: {first}")]
    suspected, before = _suspected(result), result.states[result.suspects.first - 1]
    skipped = ", ".join(state.label for state in suspected[:-1])
    doubt = f" (or one of those that could not be measured: {skipped})" if skipped else ""
    how = "confirmed against the state before it" if result.confirmed else "NOT confirmed against the state before it"
    return [
        f"{suspected[-1].label} is slower{doubt}; {before.label} is not.",
        f"Probability {result.suspects.probability:.1%} that none before it is slow, if one change did it; {how}.",
        f"{bad.label} against {good.label}: {first}.",
        *_work(result),
    ]


def _work(result: Result) -> list[str]:
    """How the work of the suspect differs from that of the state before it, as witnesses counted it."""
    assert result.suspects is not None  # noqa: S101 - asked where there are some
    pair = result.states[result.suspects.last].name, result.states[result.suspects.first - 1].name
    confirming = [step for step in result.steps if (step.state, step.against) == pair]
    return [figures.work for step in confirming[-1:] for figures in step.figures if figures.work]


def _wrong(result: Result) -> list[str]:
    if result.wrong_since is None:
        return []
    right, wrong = (result.states[at].label for at in result.wrong_since)
    return [f"Wrong answers since {wrong}; {right} answers rightly."]


def _suspected(result: Result) -> list[State]:
    suspects = result.suspects
    return list(result.states[suspects.first : suspects.last + 1]) if suspects else []


def _again(result: Result, request: Request) -> list[str]:
    """Commands that compare again what matters, with the variables that the builds were made with."""
    options = shlex.join(request.options)
    variables = "".join(f"{name}={shlex.quote(value)} " for name, value in sorted(request.variables.items()))
    commands = [result.states[-1].command(result.states[0], options)]
    if result.suspects:
        commands.append(result.states[result.suspects.last].command(result.states[result.suspects.first - 1], options))
    return [f"{variables}{command}" for command in commands]


def _label(name: str, states: Sequence[State]) -> str:
    return next(state.label for state in states if state.name == name)
