"""Wheels made again of what is installed: a build that is on no index can be had elsewhere, found by its hash."""

from __future__ import annotations

import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from pytest_rwkvperf.core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_rwkvperf.core.software import Distribution

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every member, so that one build makes one file."""

_DIGEST_LETTERS = 16


def keep(folder: Path, distributions: Iterable[Distribution]) -> list[Path]:
    """Make wheels of these installed distributions, unless they are there; gives the new ones.

    One is at `FOLDER/DIGEST/NAME-VERSION-TAGS.whl`. An editable installation has no files of its own, so none is made.

    Raises:
        StorageError: the disk refuses.
    """
    made = []
    for distribution in distributions:
        installed = metadata.distribution(distribution.name)
        if find(folder, distribution) is not None or '"editable": true' in distribution.origin:
            continue
        target = folder / distribution.digest[:_DIGEST_LETTERS] / _file_name(installed)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, installed)
        except OSError as error:
            raise StorageError(f"{target} cannot be written: {error}; make room or name another folder") from error
        made.append(target)
    return made


def find(folder: Path, distribution: Distribution) -> Path | None:
    """The kept wheel of exactly this build; None where there is none."""
    if not distribution.digest:
        return None
    return next(iter(sorted((folder / distribution.digest[:_DIGEST_LETTERS]).glob("*.whl"))), None)


def _file_name(installed: metadata.Distribution) -> str:
    """As the binary distribution format has it."""
    wheel = installed.read_text("WHEEL") or ""
    tags = [line.partition(":")[2].strip() for line in wheel.splitlines() if line.startswith("Tag:")]
    name = canonicalize_name(installed.metadata["Name"]).replace("-", "_")
    return f"{name}-{installed.version}-{tags[0] if tags else 'py3-none-any'}.whl"


def _write(target: Path, installed: metadata.Distribution) -> None:
    temporary = target.with_suffix(".tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, source in _members(installed):
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), source.read_bytes(), zipfile.ZIP_DEFLATED)
    temporary.replace(target)


def _members(installed: metadata.Distribution) -> Iterator[tuple[str, Path]]:
    """The files that belong into a wheel: RECORD's below site-packages, but for what an installer adds."""
    for file in sorted(installed.files or (), key=str):
        path = PurePosixPath(file)
        added = path.name in {"INSTALLER", "REQUESTED", "direct_url.json"} or path.suffix == ".pyc"
        if ".." not in path.parts and not added:  # a script lies outside; the installer makes it of the entry points
            yield str(path), Path(str(installed.locate_file(file)))
