"""Write reports as files. Targets are checked before measuring; a file is written as a whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.atomic import check_replaceable, destination, is_stream, write_atomically
from pytest_rwkvperf.core.errors import OptionError, ReportError, StorageError
from pytest_rwkvperf.reports import formats

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_rwkvperf.reports.formats import ReportRequest
    from pytest_rwkvperf.reports.report import Language
    from pytest_rwkvperf.store.record import Record


def check(requests: Sequence[ReportRequest]) -> None:
    """Check, leaving nothing behind, that the reports can be written: a mistyped path must not cost hours of measuring.

    Raises:
        OptionError: two reports share a file, a file cannot be written, or a library of a format is not installed.
    """
    targets: set[Path] = set()
    for request in requests:
        formats.load(request.format).check()
        target = check_target(f"the report {str(request.path)!r}", request.path)
        if target in targets and not is_stream(target):
            raise OptionError(f"two reports would be {str(request.path)!r}; give each a file of its own")
        targets.add(target)


def check_target(name: str, path: Path) -> Path:
    """Check, leaving nothing behind, that a file can be written; error messages call it `name`.

    Returns: the file that links lead to.

    Raises:
        OptionError: it cannot be written.
    """
    try:
        return check_replaceable(path)
    except IsADirectoryError:
        raise OptionError(f"{name} is a folder; name a file in it") from None
    except OSError as error:
        raise OptionError(f"{name} cannot be written: {error}; name another file") from error


def write(record: Record, request: ReportRequest, language: Language) -> list[Path]:
    """Write one report, making its folder; returns the files, of which there may be one per engine.

    Raises:
        ReportError: the format has nothing to show, or the file cannot be written.
    """
    texts = formats.load(request.format).render(record, language)
    paths = {request.path_of(part): text for part, text in texts.items()}
    for path, text in paths.items():
        put(text, path)
    return [*paths]


def put(text: str, path: Path) -> None:
    """Write a report's text, making its folder.

    Raises:
        ReportError: the file cannot be written.
    """
    try:
        target = destination(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text.encode())
    except (OSError, UnicodeEncodeError) as error:
        raise ReportError(f"report {path} cannot be written: {error}; what was there is untouched") from error
    except StorageError as error:
        raise ReportError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Written:
    """The result of writing several reports: the files, advice on what to do with them, one sentence per failure."""

    files: tuple[Path, ...] = ()
    advice: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


def write_all(record: Record, requests: Sequence[ReportRequest], language: Language) -> Written:
    """Write every report even if one fails."""
    written: list[Path] = []
    advice: list[str] = []
    failures: list[str] = []
    for request in requests:
        try:
            written += write(record, request, language)
            advice += advice_on(record, request, language)
        except ReportError as error:  # noqa: PERF203 - a handful of reports
            failures.append(str(error))
        except Exception as error:  # noqa: BLE001 - one report's fault may not cost the others, nor the tables
            failures.append(f"report {request.path}, please report this: {type(error).__name__}: {error}")
    return Written(tuple(written), tuple(advice), tuple(failures))


def advice_on(record: Record, request: ReportRequest, language: Language) -> Sequence[str]:
    """What to do with a report that was written."""
    return formats.load(request.format).advice(record, language, lambda part: str(request.path_of(part)))
