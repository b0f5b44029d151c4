"""llama-cpp-python with the llama.cpp in it, installed by pip into an environment of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.environments import build
from pytest_rwkvperf.environments.builders.builder import program
from pytest_rwkvperf.environments.requirements import Requirement
from pytest_rwkvperf.environments.side import Side

if TYPE_CHECKING:
    from pytest_rwkvperf.environments.builders.builder import Place


@dataclass(frozen=True, slots=True)
class LlamaCppPython:
    """The binding's own repository; its submodule is what it was at the commit."""

    name: str = "llama-cpp-python"
    backend: str = "llama-cpp"
    upstream: str = "https://github.com/abetlen/llama-cpp-python"
    marks: tuple[str, ...] = ("llama_cpp/llama_cpp.py", "CMakeLists.txt")
    rwkv7: tuple[str, str] = ("vendor/llama.cpp/src", "rwkv7")

    def flags(self) -> tuple[str, ...]:
        """Its own, and those of CMAKE_ARGS, which its build reads itself."""
        compiler = program("c++", "install one (apt-get install g++, or Xcode's command line tools)")
        return (f"CMAKE_ARGS={os.environ.get('CMAKE_ARGS', '')}", f"CXX: {compiler}")

    def build(self, place: Place) -> tuple[Side, tuple[str, ...]]:
        """Compile in a build folder that is kept (scikit-build-core's `build-dir`), and install."""
        requirement = Requirement(place.label, str(place.sources), f"{self.name} {place.identity}")
        given = build.Given({"SKBUILD_BUILD_DIR": str(place.work)}, place.descriptors)
        return Side(build.python_of([requirement], place.say, given)), ()


BUILDER = LlamaCppPython()
