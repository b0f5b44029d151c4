"""Two real environments in alternation: the second is a virtual one that has llama.cpp and nothing of this project."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.conftest import QUIET

pytestmark = pytest.mark.engine("llama-cpp")

SMALL = (*QUIET, "--rwkv-backend=llama-cpp", "--rwkv-quant=f16", "--rwkv-threads=1", "--rwkv-workload=pp32")
NEEDED = ("llama-cpp-python", "numpy", "diskcache", "jinja2", "markupsafe", "typing-extensions")
"""The engine with what it requires itself."""


@pytest.fixture(autouse=True)
def _own_cache(engine_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(engine_cache))


def bare(folder: Path) -> Path:
    """The interpreter of a new virtual environment without anything in it."""
    venv.create(folder)
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def printed(python: Path, script: str) -> str:
    ended = subprocess.run([str(python), "-I", "-c", script], capture_output=True, text=True, check=True, timeout=300)
    return ended.stdout.strip()


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its interpreter. The engine is this environment's, copied file by file: compiling it again would take minutes."""
    python = bare(tmp_path_factory.mktemp("second environment"))
    target = Path(printed(python, "import sysconfig; print(sysconfig.get_path('platlib'))"))
    for name in NEEDED:
        for file in distribution(name).files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), target / file)
    return python


def test_the_second_environment_has_the_engine_and_lacks_this_project(second: Path) -> None:
    here = "import llama_cpp; print(llama_cpp.__file__)"
    assert Path(printed(second, here)).is_relative_to(second.parents[1])
    absent = (
        "pytest",
        "pytest_rwkvperf",
        "msgspec",
        "ml_dtypes",
        "gguf",
        "scipy",
        "psutil",
        "platformdirs",
        "filelock",
    )
    lacking = f"import importlib.util as u; print([name for name in {absent} if u.find_spec(name)])"
    assert printed(second, lacking) == "[]"


def test_the_same_version_in_two_environments_is_no_regression(pytester: pytest.Pytester, second: Path) -> None:
    result = pytester.runpytest_subprocess(
        *SMALL, f"--rwkv-ab={second}", "--rwkv-budget=20", "--rwkv-tolerance=30%", timeout=600
    )
    rows = [line.split() for line in result.outlines if line.startswith("llama-cpp") and "f16" in line.split()]
    verdicts = [row[-1] for row in rows if row[3] == "pp32"]
    assert len(verdicts) == 1
    assert set(verdicts) <= {"PASS", "INCONCLUSIVE", "IMPROVEMENT"}
    assert result.ret == 0


def test_an_environment_without_the_engine_is_a_usage_error(
    pytester: pytest.Pytester, tmp_path_factory: pytest.TempPathFactory
) -> None:
    python = bare(tmp_path_factory.mktemp("bare environment"))
    result = pytester.runpytest_subprocess(*SMALL, f"--rwkv-ab={python}", timeout=600)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"llama-cpp is not installed for {python}" in " ".join(result.stderr.str().split())
