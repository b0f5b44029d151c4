"""Atomic writes: a file is written beside its target, flushed to the disk, and renamed over it.

A reader finds the old file or the new one, never a part, whenever the writer is killed or the power goes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import sys
import tempfile
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST_NAME = 100
"""Bytes of a file's name that stand in the name of what is written beside it. File systems allow 143 to 255 in all."""

_NO_SUCH_OPERATION = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""Errors of file systems that cannot flush."""

_OWN_STREAM = re.compile(r"/dev/(?:std(out|err)|fd/(\d+))|/proc/self/fd/(\d+)")


def is_stream(path: Path) -> bool:
    """Whether a path leads to a pipe or a device, or names a descriptor of this process.

    Such a path holds nothing old and must not become a file; /dev/stdout may lead to a file, if a shell redirected it.
    """
    return _own_descriptor(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def _own_descriptor(path: Path) -> int | None:
    """The descriptor of this process that a path names; None for any other path."""
    match = _OWN_STREAM.fullmatch(path.absolute().as_posix())
    return None if match is None else {"out": 1, "err": 2}.get(match[1]) or int(match[2] or match[3])


def destination(path: Path) -> Path:
    """The file to replace: a path with its links resolved, since a rename over a link would replace the link.

    A stream's path is returned as it is: what a link to a pipe leads to has no name.

    Raises:
        FileNotFoundError: the path or a folder on the way is a dangling link. Writing through it would make a file
            wherever the author of the link wanted one.
    """
    for link in (part for part in (path, *path.parents) if part.is_symlink() and not part.exists()):
        what = "it" if link == path else f"the folder {link}"
        message = f"{what} is a link to {link.readlink()}, which is not there; remove the link or bring the file"
        raise FileNotFoundError(message)
    return path if is_stream(path) else path.resolve()


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file's content; a stream is written to instead: as root, a rename would replace /dev/null by a file.

    Raises:
        OSError: the disk refuses; the old file is unchanged.
        StorageError: the new file is in place, and its folder cannot be flushed.
    """
    if is_stream(path):
        _write_stream(path, data)
        return
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _write_stream(path: Path, data: bytes) -> None:
    own = _own_descriptor(path)
    if own is not None:  # a second open file would have its own position, and overwrite what is printed
        sys.stdout.flush()
        sys.stderr.flush()
    with path.open("wb") if own is None else os.fdopen(os.dup(own), "wb") as stream:
        stream.write(data)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """An empty file beside `target` to write to; it replaces `target` when the block ends, and is removed if it fails.

    Raises:
        OSError: the disk refuses; the old file is unchanged.
        StorageError: the new file is in place, and its folder cannot be flushed.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{short_name(target.name)}.", suffix=".tmp", dir=target.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            _sync(file.fileno())
        with suppress(PermissionError, NotImplementedError):  # file systems without modes, of Windows and of networks
            temporary.chmod(0o644)  # mkstemp makes files private; a baseline is committed, and read by others
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):  # a read-only disk refuses this too, and would hide why writing failed
            temporary.unlink()
        raise
    try:
        _sync_folder(target.parent)
    except OSError as error:
        raise StorageError(
            f"{target} was written, but its folder could not be flushed to the disk ({error}): "
            "the new file is in place, and a power cut may bring the old one back; check the disk"
        ) from error


def remove_leftovers(target: Path) -> None:
    """Remove the temporary files that killed writers of `target` left; call it with the target's lock held."""
    for leftover in target.parent.glob(f".{escape(short_name(target.name))}.*.tmp"):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable (fsync(2)). Windows, and some network file systems, have no such step for folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """Flush to the disk, where the file system can."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_OPERATION:
            raise


def short_name(name: str) -> str:
    """A file's name, a long one as its beginning and a hash, for the names of other files about it."""
    data = os.fsencode(name)
    if len(data) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(data).hexdigest()[:16]
    return f"{data[: _LONGEST_NAME - len(digest) - 1].decode(errors='ignore')}~{digest}"


def check_replaceable(path: Path) -> Path:
    """Check, leaving nothing behind, that a file can be written; its folder may be missing and is not made.

    Returns: the file that links lead to.

    Raises:
        OSError: it cannot be written.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    try:
        target = destination(path)
    except RuntimeError as error:  # a loop of links, until Python 3.13
        raise OSError(errno.ELOOP, str(error), str(path)) from error
    if is_stream(target):
        return target
    existing = next((folder for folder in target.parents if _exists(folder)), target.parent)
    try:
        # Permissions do not tell: root ignores them, and a mount may be read-only or full.
        tempfile.NamedTemporaryFile(dir=existing, prefix=f".{short_name(target.name)}.").close()
    except OSError as error:  # it names the temporary file
        raise OSError(error.errno, error.strerror, str(existing)) from error
    _exists(target)  # where the folder takes no name that long, this raises
    return target


def _exists(path: Path) -> bool:
    """Like `Path.exists`, but raise OSError for a path that cannot exist, such as one below a file."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True
