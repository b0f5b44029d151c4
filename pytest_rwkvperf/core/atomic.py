"""Writing files so that a reader never meets half of one: a temporary file beside the target, renamed over it."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from pytest_rwkvperf.core.errors import StorageError

_OWN = re.compile(r"/dev/(?:std(out|err)|fd/(\d+))|/proc/self/fd/(\d+)")


def is_stream(path: Path) -> bool:
    """Whether a path leads to a pipe or a device, which holds nothing old and must not become a file.

    Or is this process's own by its name: /dev/stdout leads to whatever file a shell has sent the output to.
    """
    return _own(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def _own(path: Path) -> int | None:
    """The descriptor of this process that a path names; None for any other path."""
    found = _OWN.fullmatch(path.absolute().as_posix())
    return None if found is None else {"out": 1, "err": 2}.get(found[1]) or int(found[2] or found[3])


def destination(path: Path) -> Path:
    """The file that is replaced when one is written at a path: where a link stands, what it leads to.

    A rename over a link would put a file in the link's place. What a link to a pipe leads to has no name of its own.

    Raises:
        FileNotFoundError: it, or a folder on the way, is a link that leads nowhere; through it a file would be made
            wherever whoever brought it wanted one.
    """
    for link in (one for one in (path, *path.parents) if one.is_symlink() and not one.exists()):
        what = "it" if link == path else f"the folder {link}"
        message = f"{what} is a link to {link.readlink()}, which is not there; remove the link or bring the file"
        raise FileNotFoundError(message)
    return path if is_stream(path) else path.resolve()


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target, flush to the disk, and rename over it; a failure before that leaves the target alone.

    A pipe or a device is written to: as root, a rename would put a file in the place of /dev/null.

    Raises:
        OSError: the disk refuses; the target is as it was.
        StorageError: the target is the new file, and its folder cannot be flushed.
    """
    if is_stream(path):
        own = _own(path)
        if own is not None:  # opened anew, it would have a place of its own in a file, over what is printed
            sys.stdout.flush()
            sys.stderr.flush()
        with path.open("wb") if own is None else os.fdopen(os.dup(own), "wb") as stream:
            stream.write(data)
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a baseline is committed and read by others.
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    try:
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path} was written, but its folder could not be flushed to the disk ({error}): "
            "the new file is in place, and a power cut may bring the old one back; check the disk"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make a rename durable (fsync(2)). Windows, and some network file systems, have no such step for folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
