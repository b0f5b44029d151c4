"""Fill a folder with what proof.py --carried needs on a machine that reaches no package registry (builds.py says why).

    python benchmarks/gpu/carry.py FOLDER --python 3.12 --most 52

For x86-64 Linux; needs an index and cargo here. What the other machine's Python brings by itself (torch above all) is
left out: the packages below are those that an image for CUDA lacked or had in too old a version; more go by --also.
Vulkan's loader and web-rwkv's `bench` are not among them.
"""

from __future__ import annotations

import argparse
import os
import runpy
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "rwkv", "gguf", "msgspec", "platformdirs", "filelock", "rich", "psutil", "nvidia-ml-py", "typing-extensions",
    "pytest", "pluggy", "packaging", "pytest-benchmark", "py-cpuinfo2", "pytest-xdist", "execnet", "diskcache",
    "cupti-python", "flash-linear-attention", "fla-core", "einops",
    "hatchling", "editables", "pathspec", "tomlkit", "trove-classifiers", "scikit-build-core",
)  # fmt: skip
"""With what builds the project and llama-cpp-python, which pip looks for anew; pytest in case theirs is too old."""

GLIBC = ("2_28", "2_27", "2_24", "2_17", "2014", "2_12", "1")
"""Of manylinux, which pip wants one by one."""

_LLAMA = "vendor/llama.cpp"
LEFT_OUT = (
    ".git", ".github", "docs", "examples", "tests",
    *(f"{_LLAMA}/{one}" for one in (".git", ".github", ".devops", "docs", "models", "media", "tests", "benches")),
    *(f"{_LLAMA}/{one}" for one in ("gguf-py", "conversion", "tools/ui")),
)  # fmt: skip
"""Folders of llama-cpp-python's sdist that its build does not read: 44 of 51 MB."""

SDIST = "llama-cpp-python"


def download(folder: Path, python: str, names: list[str]) -> None:
    """Wheels, in the versions of constraints.txt."""
    systems = [f"--platform=manylinux{'_' if '_' in one else ''}{one}_x86_64" for one in GLIBC]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    where = [f"--python-version={python}", "--implementation=cp", *systems, "-c", str(CHECKOUT / "constraints.txt")]
    subprocess.run([*pip, *where, *names], check=True)


def slim(folder: Path) -> None:
    """llama-cpp-python's source without what its build does not read, under its own name."""
    with tempfile.TemporaryDirectory() as whole:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--no-binary={SDIST}", "-d", whole]
        subprocess.run([*pip, "-c", str(CHECKOUT / "constraints.txt"), SDIST], check=True)
        (source,) = Path(whole).glob("*.tar.gz")
        with tarfile.open(source) as packed, tarfile.open(folder / source.name, "w:gz", compresslevel=9) as thin:
            for member in packed:
                inside = member.name.partition("/")[2]
                if not any(f"{inside}/".startswith(f"{one}/") for one in LEFT_OUT):
                    thin.addfile(member, packed.extractfile(member) if member.isfile() else None)


def binding(folder: Path) -> None:
    """The web-rwkv binding's wheel, of the sources that are here."""
    environment = {**os.environ, **runpy.run_path(str(CHECKOUT / "tools" / "dev.py"))["CARGO"]}
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*pip, str(CHECKOUT / "native" / "web-rwkv")], check=True, env=environment)


def main() -> None:
    """Fill it, and say how large it is.

    Raises:
        SystemExit: there is something in it already, or it is too large.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="the other machine's version")
    parser.add_argument("--also", action="append", default=[], metavar="PACKAGE", help="may be repeated")
    parser.add_argument("--most", type=float, default=64.0, metavar="MIB")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if any(options.folder.glob("*.whl")):
        raise SystemExit(f"{options.folder} holds wheels already; two versions of one would stop pip: name another")
    download(options.folder, options.python, [*PACKAGES, *options.also])
    slim(options.folder)
    binding(options.folder)
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file()) / 2**20
    print(f"{options.folder}: {size:.1f} MiB")
    if size > options.most:
        raise SystemExit(f"that is more than {options.most} MiB")


if __name__ == "__main__":
    main()
