"""Run programs that get time to clean up when this process is interrupted, and pytest without a project."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import folders

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from pytest_rwkvperf.core.folders import FolderKind

_PROGRESS_SECONDS = 20.0
_AFTER_INTERRUPT, _AFTER_TERM = 2.0, 10.0
"""Seconds that a program gets to end. Ctrl-C in a terminal reaches the program too; SIGINT sent to this process alone
does not."""


@contextmanager
def isolated_pytest(python: str, kind: FolderKind) -> Iterator[tuple[list[str], Path]]:
    """The first words of a command that runs pytest with no project's tests and settings.

    Tests and settings come from a temporary folder of this kind (`folders.temporary`), which is yielded too. The
    rootdir is the current folder all the same, since relative paths in options and of stored files refer to it. Leaving
    the block removes the temporary folder, and the .benchmarks folder that pytest-benchmark makes here if that is new
    and empty.
    """
    benchmarks = Path(".benchmarks")
    existed = benchmarks.exists()
    with folders.temporary(kind) as folder:
        settings = Path(folder, "pytest.ini")
        settings.write_text("[pytest]\n", encoding="utf-8")
        places = [f"--rootdir={Path()}", f"--confcutdir={folder}", str(folder)]
        try:
            yield [python, "-m", "pytest", "-p", "no:cacheprovider", "-c", str(settings), *places], folder
        finally:
            if not existed:
                with suppress(OSError):  # it does not exist, or is not empty
                    benchmarks.rmdir()


def run(
    command: Sequence[str],
    *,
    capture: bool = False,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. Its output is shown, or returned with `capture`.

    `subprocess.run` kills its program a quarter of a second after Ctrl-C, and at once when any other exception ends the
    wait. Here it gets SIGTERM, after Ctrl-C only if it does not end by itself, and is killed if that does not help.
    """
    stream = subprocess.PIPE if capture else None
    # errors="replace": pip prints file names as they are, in any encoding.
    with (
        subprocess.Popen(
            command, stdout=stream, stderr=stream, text=True, errors="replace", env=environment
        ) as process,
        _ended_on_error(process),
    ):
        out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def run_into(
    log: Path,
    command: Sequence[str],
    still_running: Callable[[], None],
    *,
    environment: Mapping[str, str] | None = None,
    descriptors: Collection[int] = (),
) -> int:
    """Run a program to its end with its output in a file; its exit code. `still_running` is called every 20 seconds.

    `environment` is all that the program gets of variables, by default this process's; `descriptors` stay open in it.
    """
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, pass_fds=descriptors
        ) as process,
        _ended_on_error(process),
    ):
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(_PROGRESS_SECONDS)
            still_running()


@contextmanager
def _ended_on_error(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> Iterator[None]:
    """End the process if an exception leaves the block; after Ctrl-C it is first given time to end by itself."""
    try:
        yield
    except BaseException as error:
        _end(process, _AFTER_INTERRUPT if isinstance(error, KeyboardInterrupt) else 0)
        raise


def _end(process: subprocess.Popen[str] | subprocess.Popen[bytes], seconds: float) -> None:
    """Wait, then terminate and wait, then kill. Another Ctrl-C cuts a wait short: leaving `Popen` waits for ever."""
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        process.communicate(timeout=seconds)
        return
    process.terminate()
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        process.communicate(timeout=_AFTER_TERM)
        return
    process.kill()
