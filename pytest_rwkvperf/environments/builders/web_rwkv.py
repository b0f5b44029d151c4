"""The web-rwkv crate: this project's binding, built on a state of the crate instead of its release."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.digest import sha256_of
from pytest_rwkvperf.environments.build import BuildError
from pytest_rwkvperf.environments.builders.builder import installed, program

if TYPE_CHECKING:
    from pytest_rwkvperf.environments.builders.builder import Place
    from pytest_rwkvperf.environments.side import Side

_BINDING = Path(__file__).parents[3] / "native" / "web-rwkv"
_COMPILED = ("*.toml", "*.lock", "*.rs", "src/*.rs", "python/*/*.py*")
_VERSION = re.compile(r'^version\s*=\s*"([^"]+)"', re.MULTILINE)
_WGPU = re.compile(r'^wgpu = (?:\{[^}\n]*version = )?"([^"]+)"', re.MULTILINE)
_ENGINE = re.compile(r'^(web-rwkv = \{ version = ")=[^"]+(")', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class WebRwkv:
    """The crate's own repository."""

    name: str = "web-rwkv"
    backend: str = "web-rwkv"
    upstream: str = "https://github.com/cryscan/web-rwkv"
    marks: tuple[str, ...] = ("Cargo.toml", "src/runtime")
    rwkv7: tuple[str, str] = ("src/runtime", "v7")

    def flags(self) -> tuple[str, ...]:
        """Cargo's release profile of the binding, whatever the state, and a hash of the binding's source."""
        return f"cargo: {program('cargo', 'install Rust (https://rustup.rs)')}", f"binding: {_binding_digest()}"

    def build(self, place: Place) -> tuple[Side, tuple[str, ...]]:
        """Compile a copy of the binding that names the state as its web-rwkv."""
        binding = place.target / "binding"
        patched_binding(place.sources, binding)
        return installed(place, self.name, binding, {"CARGO_TARGET_DIR": str(place.work)}), ()


def _binding_digest() -> str:
    """A hash of the binding's files that are compiled with the crate: other files make another build."""
    files = sorted(path for pattern in _COMPILED for path in _BINDING.glob(pattern))
    rows = [f"{path.relative_to(_BINDING).as_posix()} {sha256_of(path)}\n" for path in files]
    return hashlib.sha256("".join(rows).encode()).hexdigest()[:12]


def patched_binding(crate: Path, copy: Path) -> None:
    """Copy the binding, with a `[patch]` that gives it a crate's folder for the release; its lock file goes into both.

    Raises:
        BuildError: the binding's source is not here, or the folder is no crate.
    """
    if not (_BINDING / "Cargo.toml").is_file():
        raise BuildError(
            "web-rwkv is built into this project's binding, whose source is only in a checkout of pytest-rwkvperf; "
            "install it from one (pip install -e CHECKOUT)"
        )
    version = _VERSION.search((crate / "Cargo.toml").read_text(encoding="utf-8"))
    if version is None:
        raise BuildError(f"{crate / 'Cargo.toml'} names no version; give the folder of the crate web-rwkv")
    shutil.copytree(_BINDING, copy, ignore=shutil.ignore_patterns("target", ".venv", "tests", "__pycache__"))
    manifest = copy / "Cargo.toml"
    text, count = _ENGINE.subn(rf"\g<1>={version[1]}\g<2>", manifest.read_text(encoding="utf-8"))
    assert count == 1  # noqa: S101 - this project's own file
    if wgpu := _WGPU.search((crate / "Cargo.toml").read_text(encoding="utf-8")):
        # Adapters go from the binding to the crate, so both must have one wgpu.
        text = _WGPU.sub(f'wgpu = "{wgpu[1]}"', text)
    patch = f'\n[patch.crates-io]\nweb-rwkv = {{ path = "{crate.as_posix()}" }}\n'
    manifest.write_text(text + patch, encoding="utf-8")
    # The crate's derive macros name serde by the release that the lock file beside them has (its build.rs), which must
    # be the one that the binding is compiled with.
    shutil.copyfile(copy / "Cargo.lock", crate / "Cargo.lock")
    settings = copy / "pyproject.toml"
    # The lock file names the release; cargo changes that entry and keeps the others.
    settings.write_text(settings.read_text(encoding="utf-8").replace("locked = true\n", ""), encoding="utf-8")


BUILDER = WebRwkv()
