"""Build the release twice, compare the builds, test the built wheel, and write its bill of materials.

    python tools/release.py [--binding] [--audit] [--no-tests] [--out dist]

1. The plugin's sdist and wheel, with --binding also the web-rwkv binding's wheel, are built in two fresh copies of the
   committed files and compared byte by byte.
2. The wheel is installed with constraints.txt into a new environment, whose content becomes the bill of materials
   (CycloneDX, `*.cdx.json` beside the wheel). The binding's lists its crates, as maturin has put them into its wheel.
3. The tests that need no real engine run against the installed wheel, outside of this checkout's package.
4. With --audit, pip-audit, and cargo-audit where it is installed, look for known vulnerabilities; this needs a network.

The tools come with `pip install -c constraints.txt -e . --group release`, by pip 25.1 or newer. Exit 1 with a message
when a step fails.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent


class ReleaseError(Exception):
    """A step failed; the message says which and why."""


def run(command: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return its output; ReleaseError with its last lines when it fails."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # only what is installed
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**own, **(env or {})}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
        raise ReleaseError(f"`{' '.join(map(str, command))}` ended with exit code {done.returncode}:\n{tail}")
    return done.stdout


def committed(folder: Path) -> Path:
    """A copy of the committed files, without anything else in the checkout."""
    archive = folder / "source.tar"
    run(["git", "archive", "--format=tar", f"--output={archive}", "HEAD"], ROOT)
    source = folder / "source"
    source.mkdir()
    shutil.unpack_archive(archive, source)
    return source


@contextmanager
def same_place() -> Iterator[Path]:
    """A folder whose path depends on the commit alone: Rust's output depends on the path of its sources."""
    commit = run(["git", "rev-parse", "--short=12", "HEAD"], ROOT).strip()
    place = Path(tempfile.gettempdir(), f"rwkvperf-release-of-{commit}")
    try:
        place.mkdir(mode=0o700)
    except FileExistsError as error:
        raise ReleaseError(f"{place} exists; if no other release is being built, remove it") from error
    try:
        yield place
    finally:
        shutil.rmtree(place)


def build(results: Path, *, binding: bool) -> Path:
    """Build everything from a fresh copy into a new folder."""
    with same_place() as place:
        source = committed(place)
        epoch = run(["git", "log", "-1", "--format=%ct"], ROOT).strip()
        env = {"SOURCE_DATE_EPOCH": epoch, "PYTHONHASHSEED": "0"}
        run([sys.executable, "-m", "build", "--outdir", results, source], place, env)
        if binding:
            crate = source / "native" / "web-rwkv"
            # rustc writes paths into the binary; the user's home must not be published.
            flags = f"--remap-path-prefix={source}=/source --remap-path-prefix={Path.home()}=/home"
            options = ["--release", "--locked", "--auditwheel", "skip", "--out", str(results)]
            maturin = [sys.executable, "-m", "maturin", "build", *options, "--interpreter", sys.executable]
            run(maturin, crate, {**env, "RUSTFLAGS": flags})
    return results


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def environment_with(wheel: Path, folder: Path, extras: str = "", project: Path | None = None) -> Path:
    """A fresh virtual environment with a wheel in it, and with the test group of a project; its Python."""
    run([sys.executable, "-m", "venv", folder], ROOT)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    if project:
        run([*install, "--upgrade", "pip"], ROOT)  # venv's own may be older than 25.1, which knows no groups
        install += ["--group", f"{project / 'pyproject.toml'}:test"]
    run([*install, f"{wheel}[{extras}]" if extras else wheel], ROOT)
    return python


def bill_of_materials(python: Path, wheel: Path) -> Path:
    """The bill of materials of an environment, as CycloneDX JSON beside the wheel; reproducible, so without a time."""
    target = wheel.with_name(f"{wheel.name}.cdx.json")
    options = ["--output-reproducible", "--output-format", "JSON", "--output-file", str(target)]
    run([sys.executable, "-m", "cyclonedx_py", "environment", *options, python], ROOT)
    return target


def bill_of_crates(wheel: Path) -> Path:
    """The crates of the binding's wheel, by the list that maturin has put into it."""
    target = wheel.with_name(f"{wheel.name}.cdx.json")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".cyclonedx.json"))
        target.write_bytes(archive.read(name))
    return target


@dataclass(frozen=True, slots=True)
class Tested:
    """A wheel to test: its module, its folder in the repository, its package and tests there, and extras they need."""

    module: str
    root: str
    package: str
    tests: tuple[str, ...]
    extras: str = ""


PLUGIN = Tested(
    "pytest_rwkvperf", ".", "pytest_rwkvperf", ("tests/unit", "tests/integration/runs"), extras="hub,history,html"
)
BINDING = Tested("rwkvperf_web_rwkv", "native/web-rwkv", "python", ("tests",))


def run_tests(wheel: Path, tested: Tested, folder: Path) -> str:
    """The last line of the tests that run against the installed wheel: the package is not beside them."""
    folder.mkdir()
    python = environment_with(wheel.resolve(), folder / "environment", tested.extras, ROOT / tested.root)
    root = committed(folder) / tested.root
    shutil.rmtree(root / tested.package)
    where = run([python, "-c", f"import {tested.module} as m; print(m.__file__)"], root).strip()
    if "site-packages" not in where:
        raise ReleaseError(f"the tests would import {where}, not the installed wheel")
    said = run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tested.tests], root)
    return said.strip().splitlines()[-1]


def audit(python: Path) -> None:
    """Print known vulnerabilities of the installed distributions and of the binding's crates."""
    frozen = run([python, "-m", "pip", "freeze", "--exclude", "pytest-rwkvperf"], ROOT)
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "requirements.txt")
        listed.write_text(frozen, encoding="utf-8")
        # --strict: a distribution that the source of advisories does not know is a failure.
        print(run([sys.executable, "-m", "pip_audit", "--strict", "--no-deps", "--disable-pip", "-r", listed], ROOT))
    if shutil.which("cargo-audit"):
        print(run(["cargo", "audit"], ROOT / "native" / "web-rwkv"))
    else:
        print("cargo-audit is not installed: `cargo install cargo-audit`, then run this again.")


def release(options: argparse.Namespace, folder: Path) -> None:
    """Run every step and print its result."""
    first, second = (build(folder / name, binding=options.binding) for name in ("first", "second"))
    built = hashes(first)
    different = [name for name, value in hashes(second).items() if built.get(name) != value]
    if different:
        raise ReleaseError(f"two builds of the same commit differ: {', '.join(different)}")
    out = Path(options.out)
    shutil.copytree(first, out, dirs_exist_ok=True)
    for name, value in built.items():
        print(f"{value}  {name}")
    print("Two builds gave the same bytes.")
    wheels = {
        tested: out / name
        for tested in (PLUGIN, BINDING)
        for name in built
        if name.startswith(f"{tested.module}-") and name.endswith(".whl")
    }
    bare = environment_with(wheels[PLUGIN].resolve(), folder / "bare")
    print(f"Bill of materials: {bill_of_materials(bare, wheels[PLUGIN])}")
    if options.binding:
        print(f"Bill of materials: {bill_of_crates(wheels[BINDING])}")
    for tested, wheel in wheels.items() if not options.no_tests else ():
        last = run_tests(wheel, tested, folder / tested.module)
        print(f"Tests against the built {wheel.name}: {last}", flush=True)
    if options.audit:  # last: it fails where the source of advisories cannot be reached
        audit(bare)


def main() -> int:
    """Build, compare, describe, test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binding", action="store_true", help="also build the web-rwkv binding; compiles it twice")
    parser.add_argument("--audit", action="store_true", help="look for known vulnerabilities; needs a network")
    parser.add_argument("--no-tests", action="store_true", help="do not run the tests against the wheel")
    parser.add_argument("--out", default="dist", help="where the results go; default dist")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="rwkvperf-release-") as folder:
            release(options, Path(folder))
    except ReleaseError as error:
        print(f"Not released: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
