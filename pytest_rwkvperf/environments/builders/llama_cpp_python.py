"""llama-cpp-python with the llama.cpp in it, installed by pip into an environment of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.environments.builders.builder import installed, program

if TYPE_CHECKING:
    from pytest_rwkvperf.environments.builders.builder import Place
    from pytest_rwkvperf.environments.side import Side


@dataclass(frozen=True, slots=True)
class LlamaCppPython:
    """The binding's own repository; its submodule is what it was at the commit."""

    name: str = "llama-cpp-python"
    backend: str = "llama-cpp"
    upstream: str = "https://github.com/abetlen/llama-cpp-python"
    marks: tuple[str, ...] = ("llama_cpp/llama_cpp.py", "CMakeLists.txt")
    rwkv7: tuple[str, str] = ("vendor/llama.cpp/src", "rwkv7")

    def flags(self) -> tuple[str, ...]:
        """CMAKE_ARGS, which the package's build reads itself, and the compiler."""
        compiler = program("c++", "install one (apt-get install g++, or Xcode's command line tools)")
        return (f"CMAKE_ARGS={os.environ.get('CMAKE_ARGS', '')}", f"CXX: {compiler}")

    def build(self, place: Place) -> tuple[Side, tuple[str, ...]]:
        """Compile in a build folder that is kept (scikit-build-core's `build-dir`), and install."""
        return installed(place, self.name, place.sources, {"SKBUILD_BUILD_DIR": str(place.work)}), ()


BUILDER = LlamaCppPython()
