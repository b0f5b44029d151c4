"""Read what an engine consists of, inside the worker that has loaded it; the standard library alone."""

from __future__ import annotations

import hashlib
import platform
import re
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.digest import sha256_of
from pytest_rwkvperf.core.software import Distribution, Software

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_LARGE = 16 << 20
"""Bytes. A library beyond this is known by the hash in its distribution's RECORD, when its size is the one there: torch
for CUDA loads some 3 GB of them, which would take longer to read than the engine takes to start."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)

_UNSTABLE = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""Files that differ between two installations of one wheel."""

_NOT_THE_ENGINES = {"pytest_rwkvperf", "_distutils_hack", "__main__", "__mp_main__"}
_SYSTEM_LIBRARIES = ("/lib", "/usr/lib", "/usr/lib64", "/lib64")


def read(distributions: Iterable[str], build: str, environment: Mapping[str, str]) -> Software:
    """What this process has loaded of an engine whose distributions have these names.

    Args:
        distributions: the engine's own; what they require is found from them.
        build: the engine's own account of its build.
        environment: the variables that it reads.
    """
    found = list(_closure(distributions))
    recorded = dict(file for distribution in found for file in _large_files(distribution))
    return Software(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=sysconfig.get_platform(),
        distributions=tuple(sorted(map(_describe, found), key=lambda each: each.name)),
        modules=_loaded_modules(),
        libraries=_loaded_libraries(recorded),
        build=build,
        environment=dict(environment),
    )


def _closure(names: Iterable[str]) -> Iterator[metadata.Distribution]:
    """The installed ones of these distributions and of what they require, each once."""
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if (key := _normalised(name)) in seen:
            continue
        seen.add(key)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of another system, or of an extra
        yield distribution
        required = (requirement for requirement in distribution.requires or () if "extra ==" not in requirement)
        waiting += [match[0] for requirement in required if (match := _NAME.match(requirement))]


def _normalised(name: str) -> str:
    """A distribution's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _describe(distribution: metadata.Distribution) -> Distribution:
    rows = sorted(f"{path} {digest}" for path, digest, _ in _rows(distribution))
    return Distribution(
        name=_normalised(distribution.metadata["Name"]),
        version=distribution.version,
        digest=hashlib.sha256("\n".join(rows).encode()).hexdigest() if rows else "",
        origin=(distribution.read_text("direct_url.json") or "").strip(),
    )


def _rows(distribution: metadata.Distribution) -> Iterator[tuple[str, str, str]]:
    """Path, hash and size of each file that RECORD names, without what differs between two installations of a wheel.

    RECORD is read here: importlib.metadata takes seconds for the 13 000 rows of torch's.
    """
    for line in (distribution.read_text("RECORD") or "").splitlines():
        path, digest, size = line.rsplit(",", 2)
        if digest and not path.endswith(_UNSTABLE) and "__pycache__" not in path:
            yield path, digest, size


def _large_files(distribution: metadata.Distribution) -> Iterator[tuple[str, tuple[str, int]]]:
    """The real paths of its large files, each with RECORD's hash and size."""
    for path, digest, size in _rows(distribution):
        if int(size or 0) > _LARGE:
            yield str(Path(str(distribution.locate_file(path))).resolve()), (digest, int(size))


def _loaded_modules() -> dict[str, str]:
    """A hash over the files of each top-level package that is loaded, but for Python's own and this project's."""
    standard = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    by_package: dict[str, list[tuple[str, Path]]] = {}
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        package = name.partition(".")[0]
        if file is None or package in _NOT_THE_ENGINES or _is_standard(file, standard):
            continue
        by_package.setdefault(package, []).append((name, Path(file)))
    return {package: _digest_of_modules(files) for package, files in by_package.items()}


def _is_standard(file: str, folders: Iterable[str]) -> bool:
    return "site-packages" not in file and "dist-packages" not in file and file.startswith(tuple(folders))


def _digest_of_modules(files: Iterable[tuple[str, Path]]) -> str:
    total = hashlib.sha256()
    for name, path in files:
        total.update(f"{name} {_digest(path) if path.suffix == '.py' else path.suffix}\n".encode())
    return total.hexdigest()


def _loaded_libraries(recorded: Mapping[str, tuple[str, int]]) -> dict[str, str]:
    """Hashes of the shared libraries in this process's memory; on Linux alone, elsewhere RECORDs have to do."""
    return {
        Path(path).name: recorded[path][0]
        if path in recorded and Path(path).stat().st_size == recorded[path][1]
        else _digest(Path(path))
        for path in _mapped()
    }


def _mapped() -> list[str]:
    """Files that this process has mapped to run code from, without the system's."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[5] for line in lines if " r-xp " in line and line.count(" /")}
    others = (*_SYSTEM_LIBRARIES, f"{sysconfig.get_path('stdlib')}/lib-dynload")
    libraries = {path for path in paths if ".so" in Path(path).name and Path(path).exists()}
    return sorted(
        path for path in libraries if not path.startswith(others) and not Path(path).name.startswith("libpython")
    )


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:  # a module of a zip file, or one that has been removed since
        return ""
