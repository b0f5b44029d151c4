"""Compare two states: a pytest run that measures them in alternation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pytest_rwkvperf.bisect.outcome import Figures, Outcome
from pytest_rwkvperf.core import clock, subprocesses
from pytest_rwkvperf.core.errors import RwkvPerfError
from pytest_rwkvperf.stats.verdicts import classify
from pytest_rwkvperf.store import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_rwkvperf.bisect.outcome import Kind
    from pytest_rwkvperf.bisect.states import Prepared

By = Literal["time", "instructions"]
"""What decides that a state is slower."""

_SIDES = 2
_NOT_SLOWER = {"PASS", "IMPROVEMENT"}


class OldStateError(RwkvPerfError):
    """The state with which all others are compared cannot be measured."""


def check_old(old: Prepared, backend: str, options: Sequence[str]) -> None:
    """Check that pytest accepts the options with the old state on both sides, before another one is built.

    Raises:
        OldStateError: it does not, or selects nothing to measure.
    """
    with subprocesses.isolated_pytest(old.python, "bisect") as (pytest, _):
        command = [*pytest, "-q", "--collect-only", f"--rwkv-backend={backend}", *_sides(old, old), *options]
        ended = subprocesses.run(command, capture=True)
    if ended.returncode != 0:
        message = "\n  ".join(_lines(ended.stderr) or _lines(ended.stdout))
        raise OldStateError(message.removeprefix("ERROR: "))


def compare(new: Prepared, old: Prepared, backend: str, options: Sequence[str], by: By = "time") -> Outcome:
    """Whether one state is slower than another, with the figures or the reason. The outcome's names are left empty.

    Relative paths in the options are from the current folder. `by` is what decides: the times, or a witness's counts.

    Raises:
        OldStateError: nothing was measured, because of the old state.
    """
    began = clock.monotonic()
    with subprocesses.isolated_pytest(new.python, "bisect") as (pytest, folder):
        path = folder / "run.json"
        own = ("-q", *_sides(new, old), f"--rwkv-backend={backend}", f"--rwkv-report=json:{path}")
        ended = subprocesses.run([*pytest, *own, *options], capture=True)
        try:
            run = record.read(path)
        except RwkvPerfError:
            lines = _lines(ended.stdout + ended.stderr)
            if of_old := [line for line in lines if f"--rwkv-ab={old.as_old}: " in line]:
                raise OldStateError(of_old[-1].removeprefix("ERROR: ")) from None
            return Outcome("", "", "broken", f"it does not run: {' / '.join(lines[-3:])}")
    failures = [case.failure.splitlines()[0] for case in run.cases if case.failure]
    of_old = [failure for failure in failures if f"{old.as_old}: " in failure]
    wrong = [item.reason for _, item in run.items() if item.verdict == "INVALID" and f"{old.as_old}: " in item.reason]
    if wrong or (of_old and len(failures) == len(run.cases)):
        raise OldStateError((wrong or of_old)[0].splitlines()[0])
    return replace(_answer(run, failures, by), seconds=round(clock.monotonic() - began, 1))


def _sides(new: Prepared, old: Prepared) -> tuple[str, ...]:
    return (f"--rwkv-ab={old.as_old}", *new.as_new)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _answer(run: record.Record, failures: list[str], by: By) -> Outcome:
    verdicts: set[str | None] = {item.verdict for _, item in run.items()}
    figures = tuple(_figures(run) if by == "time" else _counts(run, by))
    pairs = max((len(case.measured.runs) for case in run.cases if case.measured), default=0)

    def outcome(kind: Kind, reason: str = "") -> Outcome:
        return Outcome("", "", kind, reason, figures, pairs)

    if "INVALID" in verdicts:
        wrong = [item.reason for _, item in run.items() if item.verdict == "INVALID"]
        return outcome("invalid", wrong[0].splitlines()[0])
    if by != "time" and not failures:
        verdicts = {each.verdict for each in figures}
    if "REGRESSION" in verdicts:
        return outcome("slower")
    if verdicts and verdicts <= _NOT_SLOWER:
        return outcome("same")
    if failures:
        return outcome("broken", f"it does not run: {' / '.join(failures)}")
    if by != "time":
        return outcome("broken", f"nothing was counted: {by} cannot see this engine here")
    shown = ", ".join(map(str, figures))
    return outcome("undecided", f"noise hides the answer ({shown}); a larger --rwkv-budget may show it")


def _figures(run: record.Record) -> list[Figures]:
    found = []
    for case, item in run.items():
        if item.comparison is None:
            continue
        deciding = item.comparison.deciding
        differs = item.work is not None and item.work.verdict != "SAME WORK"
        work = f"{item.work.verdict}: {'; '.join(item.work.sentences)}" if item.work and differs else ""
        bounds = deciding.ratio, deciding.low, deciding.high
        found.append(Figures(case.case.quant, item.workload, str(item.verdict), *bounds, work=work))
    return found


def _counts(run: record.Record, witness: By) -> Iterator[Figures]:
    """What a witness counted, as a ratio of old to new: beyond the tolerance it is a REGRESSION, without chance."""
    for case, item in run.items():
        sides = [
            reading.workloads.get(item.workload)
            for measured in (case.measured, case.old)
            for reading in (measured.witnesses if measured else ())
            if reading.witness == witness
        ]
        if len(sides) == _SIDES and (new := sides[0]) and (old := sides[1]) and item.tolerance:
            ratio = old.count / new.count
            verdict = classify(ratio, ratio, item.tolerance)
            work = f"{item.work.verdict}: {'; '.join(item.work.sentences)}" if item.work else ""
            yield Figures(case.case.quant, item.workload, verdict, ratio, ratio, ratio, work=work)
