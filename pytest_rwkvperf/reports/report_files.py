"""Reports as files: checked before anything is measured, and written whole or not at all."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.atomic import destination, is_stream, write_atomically
from pytest_rwkvperf.core.errors import OptionError, ReportError, StorageError
from pytest_rwkvperf.reports import formats
from pytest_rwkvperf.reports.report import NeedsMore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_rwkvperf.reports.formats import Wanted
    from pytest_rwkvperf.reports.report import Style
    from pytest_rwkvperf.store.record import Record


def check(wanted: Sequence[Wanted]) -> None:
    """See that the reports can be written, leaving nothing behind: hours of measuring must not end at a typing error.

    Raises:
        OptionError: two reports would be one file, one cannot be written, or what makes it is not installed.
    """
    taken: set[Path] = set()
    for one in wanted:
        if isinstance(report := formats.load(one.format), NeedsMore):
            report.check()
        target = check_place(f"the report {str(one.path)!r}", one.path)
        if target in taken and not is_stream(target):
            raise OptionError(f"two reports would be {str(one.path)!r}; give each a file of its own")
        taken.add(target)


def check_place(name: str, path: Path) -> Path:
    """See that a file can be written, leaving nothing behind; which file that is. `name` is what errors call it.

    Raises:
        OptionError: it cannot.
    """
    try:
        if not path.is_dir():
            if not is_stream(target := destination(path)):
                _try_folder(target.parent)
            return target
    except (OSError, RuntimeError) as error:  # the latter of links in a loop, until Python 3.13
        raise OptionError(f"{name} cannot be written: {error}; name another file") from error
    raise OptionError(f"{name} is a folder; name a file in it")


def _try_folder(folder: Path) -> None:
    """See that a folder takes files; of one that is still to be made, the folder that it will be in.

    Raises:
        OSError: it does not.
    """
    there = next((one for one in (folder, *folder.parents) if _is_there(one)), folder)
    try:
        # A file is the only proof: permissions say nothing of root, of read-only mounts and of full disks.
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:  # which names a file that nobody has heard of
        raise OSError(error.errno, error.strerror, str(there)) from error


def _is_there(path: Path) -> bool:
    """`Path.exists`, except that a path which cannot be is an error, and no path on which something can be made."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def write(record: Record, wanted: Wanted, style: Style) -> list[Path]:
    """Write one report, making its folder; the files it became.

    Raises:
        ReportError: the format has nothing to show, or the disk refuses.
    """
    written = []
    for part, text in formats.load(wanted.format).render(record, style).items():
        path = wanted.with_part(part)
        put(text, path)
        written.append(path)
    return written


def put(text: str, path: Path) -> None:
    """Write a report's text, making its folder.

    Raises:
        ReportError: the disk refuses.
    """
    try:
        target = destination(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text.encode())
    except (OSError, UnicodeEncodeError) as error:
        raise ReportError(f"report {path} cannot be written: {error}; what was there is untouched") from error
    except StorageError as error:
        raise ReportError(str(error)) from error


def write_all(record: Record, wanted: Sequence[Wanted], style: Style) -> tuple[list[Path], list[str]]:
    """Write every report, though one of them fails; the files, and a sentence for each failure."""
    written: list[Path] = []
    troubles: list[str] = []
    for one in wanted:
        try:
            written += write(record, one, style)
        except ReportError as error:  # noqa: PERF203 - a handful of reports
            troubles.append(str(error))
    return written, troubles
