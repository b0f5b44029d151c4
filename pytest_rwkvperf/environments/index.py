"""The releases of a package that the package index has."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from pytest_rwkvperf.core import subprocesses
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.environments.build import last_lines

if TYPE_CHECKING:
    import subprocess

_AVAILABLE = re.compile(r"^Available versions: (?P<versions>.+)$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)


def releases(package: str, oldest: str, newest: str) -> list[str]:
    """The index's releases of a package from one to another, both included, oldest first.

    Raises:
        OptionError: the name or a version is malformed, OLD is not older than NEW, or the index lacks one of them or
            does not answer.
    """
    if not _NAME.fullmatch(package):
        raise OptionError(f"{package!r} is not a package name (PEP 508); name the package as pip does")
    try:
        first, last = Version(oldest), Version(newest)
    except InvalidVersion as error:
        raise OptionError(f"{error}; write OLD..NEW, for example 0.3.30..0.3.36") from error
    if first >= last:
        raise OptionError(f"{oldest}..{newest}: OLD must be older than NEW; write for example 0.3.30..0.3.36")
    listing = _pip("index", "versions", package, "--pre")
    match = _AVAILABLE.search(listing.stdout)
    if listing.returncode != 0 or match is None:
        raise OptionError(
            f"the index lists no versions of {package}: {last_lines(listing.stderr)}; check the name and the connection"
        )
    known = sorted(map(Version, match["versions"].split(", ")))
    wanted = [
        version
        for version in known
        if first <= version <= last and (not version.is_prerelease or version in (first, last))
    ]
    if not wanted or wanted[0] != first or wanted[-1] != last:
        newest_known = ", ".join(map(str, known[-8:]))
        raise OptionError(f"the index lacks {package} {first} or {last}; its newest are {newest_known}")
    return [str(version) for version in wanted]


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocesses.run(command, capture=True)  # which lets pip remove its temporary folders after Ctrl-C
