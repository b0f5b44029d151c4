"""One release beside the oldest one: a pytest run in its environment, in alternation with the other's."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import subprocesses
from pytest_rwkvperf.core.errors import RwkvPerfError
from pytest_rwkvperf.store import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.bisect.search import Answer

_SAME = {"PASS", "IMPROVEMENT"}


class OldestError(RwkvPerfError):
    """The release that all others are held against cannot be measured itself."""


def check(old: str, backend: str, options: Sequence[str]) -> None:
    """See that pytest takes the options with the old release, before another one is installed.

    Raises:
        OldestError: it does not, or finds nothing to measure.
    """
    with tempfile.TemporaryDirectory(prefix="rwkvperf-bisect-") as folder, subprocesses.leaving_nothing():
        command = [
            *subprocesses.pytest_apart(old, folder),
            "-q",
            "--collect-only",
            f"--rwkv-backend={backend}",
            *options,
        ]
        ended = subprocesses.run(command, capture=True)
    if ended.returncode != 0:
        raise OldestError("\n  ".join(_lines(ended.stderr) or _lines(ended.stdout)).removeprefix("ERROR: "))


def compare(new: str, old: str, backend: str, options: Sequence[str]) -> tuple[Answer, str]:
    """Whether the environment of one interpreter is slower than another's, and the figures or the reason.

    Nobody's tests and settings take part; relative paths in the options are from this folder.

    Raises:
        OldestError: nothing was measured, because of the old one.
    """
    with tempfile.TemporaryDirectory(prefix="rwkvperf-bisect-") as folder, subprocesses.leaving_nothing():
        written = Path(folder) / "run.json"
        own = ("-q", f"--rwkv-ab={old}", f"--rwkv-backend={backend}", f"--rwkv-report=json:{written}")
        command = [*subprocesses.pytest_apart(new, folder), *own, *options]
        ended = subprocesses.run(command, capture=True)
        try:
            found = record.read(written)
        except RwkvPerfError:
            lines = _lines(ended.stdout + ended.stderr)
            if of_old := [line for line in lines if f"--rwkv-ab={old}: " in line]:
                raise OldestError(of_old[-1].removeprefix("ERROR: ")) from None
            return "skip", f"it does not run: {' / '.join(lines[-3:])}"
    failures = [case.failure.splitlines()[0] for case in found.cases if case.failure]
    if len(failures) == len(found.cases) and (of_old := [one for one in failures if f"{old}: " in one]):
        raise OldestError(of_old[0])
    return _answer(found, failures)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _answer(found: record.Record, failures: list[str]) -> tuple[Answer, str]:
    items = [item for _, item in found.items()]
    verdicts = {item.verdict for item in items}
    figures = ", ".join(
        f"{case.case.quant} {item.workload} {item.verdict} {item.comparison.ratio:.3f}"
        for case, item in found.items()
        if item.comparison is not None
    )
    if "REGRESSION" in verdicts:
        return "slower", figures
    if items and verdicts <= _SAME:
        return "same", figures
    return "skip", " / ".join(failures) or f"noise hides the answer ({figures}); a larger --rwkv-budget may show it"
