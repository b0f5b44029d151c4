"""Compare one release with the oldest: a pytest run in its environment, in alternation with the oldest's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.core import subprocesses
from pytest_rwkvperf.core.errors import RwkvPerfError
from pytest_rwkvperf.stats.slowdown import percent_slower
from pytest_rwkvperf.store import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.bisect.search import Answer

_KIND = "bisect"
_NOT_SLOWER = {"PASS", "IMPROVEMENT"}


class OldestReleaseError(RwkvPerfError):
    """The oldest release, with which all others are compared, cannot be measured."""


def check_oldest(python: str, backend: str, options: Sequence[str]) -> None:
    """Check that pytest accepts the options in the oldest release's environment, before another one is installed.

    Raises:
        OldestReleaseError: it does not, or selects nothing to measure.
    """
    with subprocesses.isolated_pytest(python, _KIND) as (pytest, _):
        command = [*pytest, "-q", "--collect-only", f"--rwkv-backend={backend}", *options]
        ended = subprocesses.run(command, capture=True)
    if ended.returncode != 0:
        message = "\n  ".join(_lines(ended.stderr) or _lines(ended.stdout))
        raise OldestReleaseError(message.removeprefix("ERROR: "))


def compare(new: str, oldest: str, backend: str, options: Sequence[str]) -> tuple[Answer, str]:
    """Whether the environment of one interpreter is slower than another's, with the figures or the reason.

    Relative paths in the options are from the current folder.

    Raises:
        OldestReleaseError: nothing was measured, because of the oldest release.
    """
    with subprocesses.isolated_pytest(new, _KIND) as (pytest, folder):
        path = folder / "run.json"
        own = ("-q", f"--rwkv-ab={oldest}", f"--rwkv-backend={backend}", f"--rwkv-report=json:{path}")
        ended = subprocesses.run([*pytest, *own, *options], capture=True)
        try:
            run = record.read(path)
        except RwkvPerfError:
            lines = _lines(ended.stdout + ended.stderr)
            if of_oldest := [line for line in lines if f"--rwkv-ab={oldest}: " in line]:
                raise OldestReleaseError(of_oldest[-1].removeprefix("ERROR: ")) from None
            return "skip", f"it does not run: {' / '.join(lines[-3:])}"
    failures = [case.failure.splitlines()[0] for case in run.cases if case.failure]
    of_oldest = [failure for failure in failures if f"{oldest}: " in failure]
    if of_oldest and len(failures) == len(run.cases):
        raise OldestReleaseError(of_oldest[0])
    return _answer(run, failures)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _answer(run: record.Record, failures: list[str]) -> tuple[Answer, str]:
    verdicts = {item.verdict for _, item in run.items()}
    figures = ", ".join(
        f"{case.case.quant} {item.workload} {item.verdict} {percent_slower(item.comparison.deciding.ratio)}"
        for case, item in run.items()
        if item.comparison is not None
    )
    if "REGRESSION" in verdicts:
        return "slower", figures
    if verdicts and verdicts <= _NOT_SLOWER:
        return "same", figures
    return "skip", " / ".join(failures) or f"noise hides the answer ({figures}); a larger --rwkv-budget may show it"
