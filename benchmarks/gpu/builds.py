"""`make setup-cuda ARGS=--with-installed` for proof.py, on machines that reach no package registry, by what travelled.

`--carried FOLDER` of proof.py is pip's PIP_FIND_LINKS (so no space in its path), with PIP_NO_INDEX. carry.py fills it
with these, for the machine's Python and system, side by side, but for `bench` and `oracle/`:

* wheels of what the project without extras, rwkv and llama-cpp-python require and the machine's own Python lacks or has
  in too old a version;
* wheels of hatchling with what it requires (editables, packaging, pathspec, pluggy, tomlkit, trove-classifiers), also
  where that Python has them: pip builds the project in an environment that sees nothing else;
* a wheel of scikit-build-core where that Python has none; cmake and ninja are its own or on PATH;
* llama-cpp-python's sdist under its own name, 7 of its 51 MB without the folders .git, .github, docs, examples, tests
  and vendor/llama.cpp's docs, models, media, tests, .github, .devops, gguf-py, conversion and tools/ui;
* where there is no cargo: the binding's wheel (`rwkvperf_web_rwkv-*.whl`), and web-rwkv's `bench` as a program;
* for device time, a wheel of cupti-python: its CUPTI is the one that came with that Python's torch;
* for `--engines fla`, wheels of flash-linear-attention, fla-core and einops; that Python has transformers;
* for speed alone, `oracle/`: the oracle's logits from an earlier run's cache, each under the hash of what it answers;

The Vulkan loader and the libraries of GL, GLX and EGL that NVIDIA's Vulkan driver asks for (Debian: libvulkan1, libgl1,
libglx0, libegl1, libglvnd0, libopengl0, libgles2) must be in the system before.

Standard library only: the first process runs before anything is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKOUT = Path(__file__).resolve().parents[2]
VENV = CHECKOUT / ".venv"
PYTHON = VENV / "bin" / "python"
FURTHER = ("cupti_python",)
"""What the set-up does not install, by the names of wheels."""


def inside() -> bool:
    """Whether this process is of the Python that the set-up makes."""
    return Path(sys.prefix).resolve() == VENV.resolve()


def set_up(carried: Path, out: Path, engines: str, beside: Sequence[str]) -> None:
    """Set up `engines`, by default those of `make bench`: all of `dev.py`'s --engines.

    `beside` runs with .venv's Python once that has the project and rwkv, because llama.cpp compiles long.
    """
    begun, noted = time.monotonic(), out / "setup-cuda.done"
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(carried)}
    command = [sys.executable, str(CHECKOUT / "tools" / "dev.py"), "setup-cuda", "--with-installed"]
    command += [f"--engines={engines}"] if engines else []
    with subprocess.Popen(command, env=environment) as setting_up:
        while not _has_rwkv() and setting_up.poll() is None:
            time.sleep(0.2)
        # It yields the processors to the compiler, which takes longer.
        other = subprocess.run(["nice", PYTHON, *beside], check=False).returncode if _has_rwkv() else 0
    if setting_up.returncode or other:
        raise SystemExit(f"setup-cuda ended with {setting_up.returncode}, what ran beside it with {other}")
    further = [str(wheel) for name in FURTHER for wheel in carried.glob(f"{name}-*.whl")]
    if further:
        pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--no-deps", *further]
        subprocess.run(pip, env=environment, check=True)
    if not noted.exists():
        told = {"seconds": round(time.monotonic() - begun, 1), "told": f"with the packages of {sys.executable}"}
        noted.write_text(json.dumps(told) + "\n", encoding="utf-8")


def _has_rwkv() -> bool:
    """Whether the set-up has finished the project and rwkv, in this order, by its own notes."""
    try:
        return "rwkv" in json.loads((VENV / "rwkvperf-setup.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False


def take_oracle(carried: Path, cache: Path) -> None:
    """Put the oracle's logits that travelled where they are looked for; one that is there already stays."""
    cache.mkdir(parents=True, exist_ok=True)
    for path in (carried / "oracle").glob("*.npy"):
        if not (cache / path.name).exists():
            shutil.copy(path, cache)


def web_rwkv_bench(carried: Path) -> Path | None:
    """web-rwkv's `bench`, where one travelled; else own_tools.py compiles it with cargo."""
    found = carried / "bench"
    if found.exists():
        found.chmod(0o755)
    return found if found.exists() else None
