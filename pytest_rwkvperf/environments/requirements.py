"""One distribution to install, named so that there is exactly one of it: a release, a commit, a wheel, a folder."""

from __future__ import annotations

import hashlib
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from pytest_rwkvperf.core.digest import sha256_of
from pytest_rwkvperf.core.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path

ALLOWED = (
    "write a Python (another environment's bin/python), baseline (what the stored baseline was measured with), a "
    "requirement (llama-cpp-python==0.3.35, 'rwkv @ git+https://…@COMMIT'), a wheel, a source folder, "
    "REPOSITORY@REVISION or ENGINE@REVISION (llama.cpp@b9868), or lib:FOLDER (another build of llama.cpp's libraries)"
)
"""What `--rwkv-ab` takes, for its errors."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_GIT = re.compile(r"git\+(?P<url>[^@#]+(?:@[^@/#]+(?=[:/]))?[^@#]*?)(?:@(?P<ref>[^@#]+))?(?P<fragment>#.*)?")
_NOT_SOURCES = {".git", ".venv", "target", "build", "dist", "__pycache__", "node_modules"}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One distribution to install: its name for people, what pip is given, and what tells two of them apart."""

    name: str
    argument: str
    identity: str

    def __str__(self) -> str:
        return self.name


def of_text(text: str) -> Requirement:
    """A requirement of PEP 508 that names one release or one commit.

    Raises:
        OptionError: it is none, or leaves open which release it is.
    """
    try:
        parsed = Parsed(text)
    except InvalidRequirement:
        raise OptionError(f"{text!r} is not understood; {ALLOWED}") from None
    if parsed.url:
        pinned = _pinned(parsed.url)
        return Requirement(text, f"{parsed.name} @ {pinned}", f"{parsed.name} @ {pinned}")
    specifiers = list(parsed.specifier)
    if len(specifiers) != 1 or specifiers[0].operator not in {"==", "==="} or "*" in specifiers[0].version:
        raise OptionError(f"{text!r} leaves the release open; name one, for example {parsed.name}==1.2.3")
    return Requirement(text, text, f"{parsed.name}=={specifiers[0].version}")


def _pinned(url: str) -> str:
    """The address with the commit that its branch or tag is now.

    Raises:
        OptionError: git does not know it.
    """
    match = _GIT.fullmatch(url)
    if match is None or (match["ref"] and _COMMIT.fullmatch(match["ref"])):
        return url
    asked = subprocess.run(
        ["git", "ls-remote", match["url"], match["ref"] or "HEAD"], capture_output=True, text=True, check=False
    )
    commit = asked.stdout.partition("\t")[0]
    if asked.returncode or not _COMMIT.fullmatch(commit):
        reason = asked.stderr.strip() or "no such ref"
        raise OptionError(f"{url}: git knows no {match['ref'] or 'HEAD'} there: {reason}; name a branch, tag or commit")
    return f"git+{match['url']}@{commit}{match['fragment'] or ''}"


def wheel(path: Path) -> Requirement:
    """A wheel, known by its bytes.

    Raises:
        OptionError: it is not there, or its name is no wheel's.
    """
    try:
        name, version, *_ = parse_wheel_filename(path.name)
        digest = sha256_of(path)
    except InvalidWheelFilename as error:
        raise OptionError(f"{path} is no wheel: {error}; give one as pip makes it") from None
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error}; give the path of a wheel") from None
    return Requirement(f"{name}=={version} ({path.name})", str(path.resolve()), f"{name} sha256:{digest}")


def source_folder(path: Path) -> Requirement:
    """A folder with a project's sources, known by their bytes: uncommitted changes count.

    Raises:
        OptionError: nothing in it can be installed.
    """
    if not any((path / name).exists() for name in ("pyproject.toml", "setup.py")):
        raise OptionError(f"{path} has neither pyproject.toml nor setup.py; {ALLOWED}")
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file() and not _NOT_SOURCES.intersection(file.relative_to(path).parts):
            total.update(f"{file.relative_to(path)} {sha256_of(file)}\n".encode())
    return Requirement(str(path), str(path.resolve()), f"{path.resolve().name} sha256:{total.hexdigest()}")
