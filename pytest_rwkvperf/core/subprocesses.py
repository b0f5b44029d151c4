"""Programs that this one runs and, interrupted, lets clear up: their workers and temporary files are theirs to end."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_AFTER_INTERRUPT, _AFTER_TERM = 2.0, 10.0
"""Seconds. A terminal's Ctrl-C goes to the program too; one that was meant for this process alone does not."""


def pytest_apart(python: str, empty: Path | str) -> list[str]:
    """The beginning of a command that runs pytest in this folder, without anybody's tests and settings.

    Its tests and settings are those of an empty folder. The rootdir is this one all the same: relative paths of
    options, and of what is kept, would else lead into the empty folder, which is soon gone.
    """
    settings = Path(empty) / "pytest.ini"
    settings.write_text("[pytest]\n", encoding="utf-8")
    folders = [f"--rootdir={Path()}", f"--confcutdir={empty}", str(empty)]
    return [python, "-m", "pytest", "-p", "no:cacheprovider", "-c", str(settings), *folders]


@contextmanager
def leaving_nothing() -> Iterator[None]:
    """Take away the folder that pytest-benchmark makes here for what it may store, where it stored nothing."""
    made = Path(".benchmarks")
    was_there = made.exists()
    try:
        yield
    finally:
        if not was_there:
            with suppress(OSError):  # it was not made, or is not empty
                made.rmdir()


def run(command: Sequence[str], *, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its output is shown, or kept with `capture`.

    `subprocess.run` kills its program a quarter of a second after Ctrl-C, and at once when this process unwinds for
    another reason. Here it is told to end (SIGTERM) unless it does so after Ctrl-C, and killed only when it does not.
    """
    stream = subprocess.PIPE if capture else None
    # What cannot be decoded (pip names files as they are) is no reason to lose the rest.
    with subprocess.Popen(command, stdout=stream, stderr=stream, text=True, errors="replace") as process:
        try:
            out, err = process.communicate()
        except KeyboardInterrupt:
            _end(process, _AFTER_INTERRUPT)
            raise
        except BaseException:
            _end(process, 0)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _end(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait so long, then ask, then kill. Another Ctrl-C ends a wait and not the ending: `Popen` would wait for ever."""
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        process.communicate(timeout=seconds)
        return
    process.terminate()
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        process.communicate(timeout=_AFTER_TERM)
        return
    process.kill()
