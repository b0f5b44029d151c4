"""What proof.py compiles or installs from files that travelled with it: for machines that reach no package registry.

`--carried FOLDER` of proof.py holds wheels, llama-cpp-python's sdist (9 of its 77 MB without the folders .git and
vendor/llama.cpp's models, docs, media and tools/ui) and, where there is no cargo, web-rwkv's `bench` as a program.
Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CMAKE = (
    "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DGGML_CUDA=ON", "-DGGML_CUDA_FA=OFF",
    "-DCMAKE_CUDA_ARCHITECTURES=native", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF",
)  # fmt: skip
"""As tools/dev.py's setup-cuda, and llama-bench from the same source. RWKV has no attention, so no kernels for it."""


def installed(carried: Path, out: Path) -> bool:
    """Install the wheels that travelled into a folder of its own; whether this process must start anew to see it."""
    site = out / "site"
    if str(site) in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        return False
    wheels = sorted(map(str, carried.rglob("*.whl")))
    if not wheels:
        raise SystemExit(f"{carried} and its folders hold no wheels")
    if not site.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
        subprocess.run([*pip, "--target", str(site), *wheels], check=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return True


def llama(carried: Path, out: Path) -> str:
    """llama.cpp with CUDA and llama-bench from one source; the binding beside it takes its libraries from there."""
    archive = next(iter(carried.glob("llama_cpp_python-*.tar.gz")), None)
    if archive is None:
        return "no sdist of llama-cpp-python travelled: the installed one is used"
    source, build = out / "source", out / "llama"
    with tarfile.open(archive) as packed:
        packed.extractall(source, filter="data")
    package = next(source.glob("llama_cpp_python-*"))
    with (out / "build-llama.log").open("wb") as log:
        for command in (
            ["cmake", "-S", package / "vendor" / "llama.cpp", "-B", build, *CMAKE],
            ["cmake", "--build", build, "--target", "llama-bench", "llama", "--parallel", str(os.cpu_count() or 2)],
        ):
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    _beside(package, build / "bin", out / "site")
    return f"{archive.name}, {', '.join(CMAKE[2:5])}"


def _beside(package: Path, libraries: Path, site: Path) -> None:
    """The binding's Python part, with the libraries where it looks for them."""
    release = package.name.rpartition("-")[2]
    target, facts = site / "llama_cpp", site / f"llama_cpp_python-{release}.dist-info"
    shutil.copytree(package / "llama_cpp", target, dirs_exist_ok=True)
    (target / "lib").unlink(missing_ok=True)
    (target / "lib").symlink_to(libraries)
    facts.mkdir(exist_ok=True)
    told = f"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {release}\n"
    (facts / "METADATA").write_text(told, encoding="utf-8")


def llama_bench(out: Path) -> Path | None:
    """The llama-bench of `llama`'s build."""
    found = out / "llama" / "bin" / "llama-bench"
    return found if found.exists() else None


def web_rwkv_bench(carried: Path) -> Path | None:
    """web-rwkv's `bench`, where one travelled; else own_tools.py compiles it with cargo."""
    found = carried / "bench"
    if found.exists():
        found.chmod(0o755)
    return found if found.exists() else None
