"""An engine that a witness cannot execute is built anew, or the run says what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.software import Distribution, Software
from pytest_rwkvperf.environments import build, twins
from pytest_rwkvperf.environments.build import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_rwkvperf.environments.requirements import Requirement

VARIABLES = {"CMAKE_ARGS": "-DGGML_NATIVE=OFF -DGGML_AVX512=OFF", "PIP_NO_BINARY": "llama-cpp-python"}
LIBRARY = Distribution("numpy", "2.0", "e" * 64)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What pip is given, and the identity, of each environment that would be made."""
    made: list[tuple[str, str]] = []

    def python_of(requirements: Sequence[Requirement], _say: Callable[[str], None], given: build.PipInput) -> str:
        assert given.variables == VARIABLES
        made.extend((each.argument, each.identity) for each in requirements)
        return "python"

    monkeypatch.setattr(build, "python_of", python_of)
    return made


def twin(version: str = "0.3.36", origin: str = "", libraries: str | None = None) -> str:
    engine = Distribution("llama-cpp-python", version, "d" * 64, origin)
    software = Software("CPython 3.11.7", "linux-x86_64", (engine, LIBRARY))
    return twins.python_of(software, ["llama-cpp-python"], VARIABLES, lambda _: None, libraries=libraries)


def test_a_release_is_compiled_anew_and_is_another_build(asked: list[tuple[str, str]]) -> None:
    assert twin() == "python"
    ((argument, identity),) = asked
    assert argument == "llama-cpp-python==0.3.36"
    assert identity == f"{argument} CMAKE_ARGS={VARIABLES['CMAKE_ARGS']} PIP_NO_BINARY=llama-cpp-python"


WHEEL = json.dumps({"url": "file:///home/me/llama_cpp_python-0.3.36.whl", "archive_info": {}})


@pytest.mark.parametrize(
    ("version", "origin", "named"),
    [
        ("0.3.36", WHEEL, "llama-cpp-python 0.3.36 from file:///home/me/llama_cpp_python-0.3.36.whl was compiled"),
        ("0.3.36+mine", "", r"llama-cpp-python 0.3.36\+mine was compiled"),
    ],
)
def test_of_a_local_wheel_the_line_says_why_and_what_to_do(
    version: str, origin: str, named: str, asked: list[tuple[str, str]]
) -> None:
    remedy = "install a release or a commit, or compile it with CMAKE_ARGS='-DGGML_NATIVE=OFF -DGGML_AVX512=OFF'$"
    with pytest.raises(BuildError, match=rf"^{named} for instructions that it does not execute, .*{remedy}"):
        twin(version, origin)
    assert asked == []


def test_libraries_of_a_folder_stay_what_they_are_in_any_environment(asked: list[tuple[str, str]]) -> None:
    with pytest.raises(BuildError, match=r"^the libraries in /built were compiled .*compile them with CMAKE_ARGS='-D"):
        twin(libraries="/built")
    assert asked == [], "nothing is built for minutes that would be of no use"
