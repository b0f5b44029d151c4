"""Environments that differ from this one in one package's version, built with pip and kept in the user's cache."""

from __future__ import annotations

import hashlib
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from pytest_rwkvperf.core import folders, locks, subprocesses
from pytest_rwkvperf.core.errors import OptionError, RwkvPerfError

if TYPE_CHECKING:
    from collections.abc import Sequence

_AVAILABLE = re.compile(r"^Available versions: (?P<versions>.+)$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_LAST_LINES = 12


class BuildError(RwkvPerfError):
    """A release cannot be installed; bisect skips it."""


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
        raise OptionError(f"the index lists no versions of {package}: {_tail(listing.stderr)}")
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


def python_of(package: str, version: str) -> str:
    """The interpreter of an environment with that release, built unless the cache has it.

    Everything else comes from this environment, whose folders follow the new one's on the path.

    Raises:
        BuildError: pip cannot install it; the message has pip's last lines and the path of its log.
    """
    base = f"{sys.prefix} {sysconfig.get_platform()} {sys.version}"
    folder = folders.cache() / "bisect" / f"{package}-{version}-{hashlib.sha256(base.encode()).hexdigest()[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    with locks.hold(folder.with_name(f"{folder.name}.lock")):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            try:
                _build(folder, python, f"{package}=={version}")
            except BuildError:
                raise  # the message names the log in this folder
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            (folder / "complete").touch()
    return str(python)


def _build(folder: Path, python: Path, requirement: str) -> None:
    created = subprocesses.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], capture=True)
    if created.returncode != 0:
        raise BuildError(f"no virtual environment for {requirement}: {_tail(created.stderr)}")
    installed = _pip("--python", str(python), "install", "--no-deps", "--no-input", requirement)
    log = folder / "pip.log"
    log.write_text(installed.stdout + installed.stderr, encoding="utf-8")
    if installed.returncode != 0:
        raise BuildError(f"{requirement} cannot be installed: {_tail(installed.stderr)}\n  all of pip's output: {log}")
    own = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    # `addsitedir` also reads the .pth files of packages that are installed here in editable mode.
    folders = [*site.getsitepackages(), sysconfig.get_path("purelib")]
    lines = [f"import site; site.addsitedir({folder!r})" for folder in dict.fromkeys(folders)]
    Path(own.stdout.strip(), "rwkvperf_bisect.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocesses.run(command, capture=True)  # which lets pip remove its temporary folders after Ctrl-C


def _tail(text: str) -> str:
    lines: Sequence[str] = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines[-_LAST_LINES:]) or "no output"
