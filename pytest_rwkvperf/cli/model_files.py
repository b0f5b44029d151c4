"""Model files that a command writes: completely or not at all, and over an existing file only with --force."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.errors import ModelError, OptionError
from pytest_rwkvperf.models import cache
from pytest_rwkvperf.models.file_format import SUFFIXES, read_header
from pytest_rwkvperf.models.model import PRECISIONS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.streams import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of every command that writes a model file."""
    parser.add_argument(
        "--dtype",
        choices=PRECISIONS,
        help="number type of the matrices (.gguf) or of all tensors (.pth); default: f16 in a .gguf, unchanged in a "
        ".pth. A .st is always f16, the only type that web-rwkv reads",
    )
    parser.add_argument("--force", action="store_true", help="replace the target if it exists")


def format_of(path: Path) -> Format:
    """The format that a file name's suffix means.

    Raises:
        OptionError: the suffix is unknown.
    """
    format = SUFFIXES.get(path.suffix.lower())
    if format is None:
        raise OptionError(f"{str(path)!r} does not end in {', '.join(SUFFIXES)}; choose the format by one of these")
    return format


def check_dtype(format: Format, dtype: Precision | None) -> None:
    """Refuse numbers of a type that no engine reads.

    Raises:
        OptionError: a `.st` in anything but f16.
    """
    if format == "st" and dtype not in (None, "f16"):
        raise OptionError(f"--dtype={dtype} does not go with a .st file: web-rwkv reads f16 only; leave it out")


@contextmanager
def writing(target: Path, needed: int, progress: Progress, *, force: bool) -> Iterator[Path]:
    """A temporary file that replaces `target` if the block succeeds and its header reads back.

    Raises:
        ModelError: the target exists, its folder does not, it cannot be written, or the disk is full.
    """
    if not target.parent.is_dir():
        raise ModelError(f"the folder {str(target.parent)!r} does not exist; make it first")
    if target.is_dir() or (target.exists() and not force):
        raise ModelError(f"{str(target)!r} exists; name another target, or add --force to replace it")
    try:
        with (
            cache.locked(target, progress, folders.lock_for(target)),
            cache.replacing(target, needed) as temporary,
        ):
            yield temporary
            read_header(temporary)
    except PermissionError as error:
        raise ModelError(f"{str(target)!r} cannot be written: {error.strerror}; name another target") from None
