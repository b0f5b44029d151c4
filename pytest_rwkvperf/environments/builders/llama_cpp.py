"""llama.cpp alone: its shared libraries, loaded by the llama-cpp-python of this environment."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.environments.builders import llama_layout
from pytest_rwkvperf.environments.builders.builder import is_library, program
from pytest_rwkvperf.environments.side import Side

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.environments.builders.builder import Place

LIBRARIES = "LLAMA_CPP_LIB_PATH"
"""Where llama-cpp-python looks for llama.cpp's libraries instead of in itself (its llama_cpp/llama_cpp.py)."""

OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "ON",
    "LLAMA_BUILD_COMMON": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_TOOLS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_CURL": "OFF",
    # Fixed, so that two commits with the same code make the same bytes.
    "LLAMA_BUILD_NUMBER": "0",
    "LLAMA_BUILD_COMMIT": "unknown",
    # The libraries find each other in whatever folder they are.
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": "@loader_path" if sys.platform == "darwin" else "$ORIGIN",
}
"""CMake's options for a build of the libraries alone; all others are llama.cpp's defaults and those of CMAKE_ARGS."""

_OPTIONAL = tuple(name for name in OPTIONS if name.startswith("LLAMA_"))
"""Unknown to some revisions, and without effect on the speed there."""

_UNUSED = re.compile(r"Manually-specified variables were not used by the project:\s*\n\s*\n((?:\s+\w+\n)+)")


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """The engine's own repository."""

    name: str = "llama.cpp"
    backend: str = "llama-cpp"
    upstream: str = "https://github.com/ggml-org/llama.cpp"
    marks: tuple[str, ...] = ("include/llama.h", "ggml", "CMakeLists.txt")
    rwkv7: tuple[str, str] = ("src", "rwkv7")

    def flags(self) -> tuple[str, ...]:
        """The options of CMake, those of CMAKE_ARGS after them, and the compilers."""
        program("cmake", "install CMake (apt-get install cmake, or pip install cmake)")
        own = (f"-D{name}={value}" for name, value in OPTIONS.items())
        return (*own, *_cache_options(), *shlex.split(os.environ.get("CMAKE_ARGS", "")), *map(_compiler, ("CC", "CXX")))

    def build(self, place: Place) -> tuple[Side, tuple[str, ...]]:
        """Configure, compile and copy the libraries; check that llama-cpp-python can call them."""
        options = [flag for flag in self.flags() if flag.startswith("-")]
        ninja = shutil.which("ninja")
        printed = place.run(
            ["cmake", "-S", place.sources, "-B", place.work, *(("-G", "Ninja") if ninja else ()), *options],
            # A repository above the cache would give its commit to the build.
            environment={"GIT_CEILING_DIRECTORIES": str(place.sources.parent)},
        )
        place.run(["cmake", "--build", place.work, "--target", "llama", "ggml", "--parallel", str(_jobs())])
        _copy_libraries(place.work / "bin", place.target)
        layout = llama_layout.of_headers(place)
        llama_layout.check(layout, place.target, place.label)
        return Side(sys.executable, {LIBRARIES: str(place.final)}), _notes(printed)


def _cache_options() -> tuple[str, ...]:
    """CMake's options for the compilers' cache that is installed, if any."""
    cache = next(filter(shutil.which, ("sccache", "ccache")), None)
    return tuple(f"-DCMAKE_{language}_COMPILER_LAUNCHER={cache}" for language in ("C", "CXX") if cache)


def _compiler(variable: str) -> str:
    """The first line that the compiler says of itself: another release of it makes another build.

    Raises:
        BackendMissingError: there is none.
    """
    default = "c++" if variable == "CXX" else "cc"
    command = shlex.split(os.environ.get(variable, default))
    install = f"install one (apt-get install g++, or Xcode's command line tools), or name it with {variable}"
    words = [program(command[0], install), *command[1:], "--version"]
    shown = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False).stdout
    first = (shown.splitlines() or [""])[0].strip()
    return f"{variable}: {first or command[0]}"


def _jobs() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _copy_libraries(made: Path, target: Path) -> None:
    """The libraries by the names that they are loaded by; links become files."""
    for file in sorted(made.iterdir()):
        if is_library(file):
            shutil.copyfile(file, target / file.name)


def _notes(printed: str) -> tuple[str, ...]:
    """The options that this revision does not know, as far as they may change the speed, by what CMake printed."""
    match = _UNUSED.search(printed)
    unknown = [name for name in match[1].split() if name not in _OPTIONAL] if match else []
    return (f"this revision does not know {', '.join(unknown)}",) if unknown else ()


BUILDER = LlamaCpp()
