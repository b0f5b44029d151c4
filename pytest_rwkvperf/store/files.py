"""Reading and writing baseline files: nothing lost, whoever else writes and whenever the power goes."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf import locks
from pytest_rwkvperf.errors import BaselineError, LockedError, StorageError
from pytest_rwkvperf.places import lock_for
from pytest_rwkvperf.store import schema, strict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pytest_rwkvperf.cases import WorkloadKind
    from pytest_rwkvperf.machine.fingerprint import Fingerprint
    from pytest_rwkvperf.store.schema import Baseline, Noise, StoredCase

LOCK_SECONDS = 60.0

_OWN = re.compile(r"/dev/(?:std(out|err)|fd/(\d+))|/proc/self/fd/(\d+)")

_POSSIBLE = "make that possible, or name another folder"


def path_for(folder: Path, fingerprint: Fingerprint) -> Path:
    """Where a machine's baseline lives."""
    return folder / f"{fingerprint.id}.json"


def read(path: Path) -> Baseline | None:
    """The baseline at a path, None when there is no file.

    Raises:
        BaselineError: there is a file and it cannot be used; the message names it.
    """
    try:
        text = strict.read_text(path)
    except FileNotFoundError:
        if path.is_symlink():  # saved through, it would make a file wherever whoever brought the link wanted one
            raise BaselineError(
                f"baseline {path} is a link to {path.readlink()}, which is not there; remove the link or bring the file"
            ) from None
        return None
    except UnicodeDecodeError as error:
        raise BaselineError(f"baseline {path} is not text ({error}); {schema.RESTORE}") from error
    except OSError as error:
        raise BaselineError(f"baseline {path} cannot be read: {error}; {_POSSIBLE}") from error
    return schema.loads(text, path)


def others(folder: Path, fingerprint: Fingerprint) -> list[Fingerprint]:
    """Fingerprints of the other machines in a folder, those with the fewest differing fields first.

    What is no baseline there is passed over: it is another machine's to mend, or a record that lies beside.
    """
    here = path_for(folder, fingerprint)
    found = []
    for path in sorted(folder.glob("*.json")):
        with suppress(BaselineError):
            if path != here and (baseline := read(path)) is not None:
                found.append(baseline.fingerprint)
    return sorted(found, key=lambda other: len(fingerprint.differences(other)))


def save(folder: Path, fingerprint: Fingerprint, stored: Iterable[StoredCase], *, replacing: bool) -> Path:
    """Merge cases into a machine's baseline under its lock; the old file stays whole until the new one is.

    Raises:
        BaselineError: the lock is taken, the existing file is unusable, or the disk refuses; the old file is as it was.
        StorageError: the new file is in place, and the disk does not say that it will stay.
    """

    def with_cases(baseline: Baseline) -> Baseline:
        for case in stored:
            baseline = baseline.adding(case, replacing=replacing)
        return baseline

    update(folder, fingerprint, with_cases)
    return path_for(folder, fingerprint)


def save_noise(folder: Path, fingerprint: Fingerprint, noise: Mapping[WorkloadKind, Noise]) -> Path:
    """Store what an A/A run found out about a machine, in place of what an earlier one did; cases stay as they are.

    Raises:
        BaselineError: as `save`.
    """
    update(folder, fingerprint, lambda baseline: replace(baseline, noise={**baseline.noise, **noise}))
    return path_for(folder, fingerprint)


def update(folder: Path, fingerprint: Fingerprint, change: Callable[[Baseline], Baseline]) -> Path | None:
    """Put what `change` makes of a machine's baseline, read under its lock, in its place; None where it is the same.

    Raises:
        BaselineError: as `save`.
        StorageError: as `save`.
    """
    path = path_for(folder, fingerprint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locks.held(lock_for(path), LOCK_SECONDS):
            before = read(path) or schema.Baseline(fingerprint)
            if (after := change(before)) == before:
                return None
            text = schema.dumps(after)
            changed = text.encode()
            # What the next run would refuse must not take a good file's place.
            schema.loads(text, path, "nothing was saved, since it could not be read again")
            target = destination(path)
            _remove_leftovers(target)
            write_atomically(target, changed)
    except LockedError as error:
        message = (
            f"baseline {path} has been locked by {error}, for more than {LOCK_SECONDS:.0f} s; it was left as it is"
        )
        raise BaselineError(f"{message}: try again when that has ended") from error
    except (OSError, UnicodeEncodeError) as error:
        message = f"baseline {path} cannot be written: {error}; it was left as it is"
        raise BaselineError(f"{message}; {_POSSIBLE}") from error
    return path


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


def _remove_leftovers(path: Path) -> None:
    """What killed writers left beside a file; call it with the file's lock held."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


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
