"""Builds from source that are killed, find a full disk or no compiler: one sentence, and nothing half-built is used.

The source is a small project in the shape of llama.cpp's, built by the real CMake and compiler.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.disks import fill, small_disk
from tests.unit.environments import repositories

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKOUT = Path(__file__).parents[2]

CMAKE = """
cmake_minimum_required(VERSION 3.14)
project(small C CXX)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
add_library(ggml SHARED ggml/ggml.c)
add_library(llama SHARED src/llama.cpp)
target_link_libraries(llama ggml)
"""

FILES = {
    "CMakeLists.txt": CMAKE,
    "include/llama.h": "#pragma once\n",
    "ggml/ggml.c": "int ggml(void) { return 7; }\n",
    "ggml/include/ggml.h": "#pragma once\n",
    "src/llama.cpp": 'extern "C" int ggml(void);\nextern "C" int llama(void) { return ggml(); }  // rwkv7\n',
}

BUILD = """
import sys
from pytest_rwkvperf.core.errors import RwkvPerfError
from pytest_rwkvperf.environments import sources, trees
from pytest_rwkvperf.environments.builders import llama_layout
llama_layout.check = lambda *_: None  # this is no llama.cpp
try:
    made = trees.build(sources.of_text(sys.argv[1]), lambda line: print(line, flush=True))
    print("built", made.side.variables["LLAMA_CPP_LIB_PATH"])
except RwkvPerfError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("cmake", "c++", "git"):
        if shutil.which(name) is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"there is no {name} to build with")
    repositories.repository(tmp_path / "source", FILES)
    return tmp_path / "source"


def started(text: str, cache: Path, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "XDG_CACHE_HOME": str(cache), **(variables or {})}
    command = [sys.executable, "-c", BUILD, text]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)


def told(text: str, cache: Path, variables: Mapping[str, str] | None = None) -> str:
    """The last line that a build prints."""
    out, _ = started(text, cache, variables).communicate(timeout=120)
    return out.splitlines()[-1]


def works(line: str) -> bool:
    """Whether a build that was announced is whole: its libraries load, find each other, and answer."""
    kind, _, folder = line.partition(" ")
    code = f"import ctypes; assert ctypes.CDLL({folder + '/libllama.so'!r}).llama() == 7"
    return kind == "built" and subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the libraries' names are Linux'")
def test_a_build_that_is_killed_is_absent_and_the_next_one_whole(source: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow c++"
    mark = tmp_path / "compiling"
    slow.write_text(f'#!/bin/sh\ncase "$*" in *llama.cpp.o*) touch "{mark}"; sleep 3;; esac\nexec c++ "$@"\n')
    slow.chmod(0o755)
    link = tmp_path / "slow"
    link.symlink_to(slow)
    process = started(str(source), tmp_path / "cache", {"CXX": str(link)})
    deadline = time.monotonic() + 60
    while not mark.exists():
        assert time.monotonic() < deadline, "nothing is compiled"
        assert process.poll() is None, "the build ended"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)  # its compilers go on
    process.communicate()
    built = tmp_path / "cache" / "pytest-rwkvperf" / "sources" / "llama.cpp" / "built"
    assert [path for path in built.iterdir() if (path / "build.json").exists()] == []
    out, _ = started(str(source), tmp_path / "cache", {"CXX": str(link)}).communicate(timeout=120)
    assert "waiting for the compilers of a build that was killed" in out
    assert works(out.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small file system")
def test_a_full_disk_is_one_sentence_and_room_repairs_it(source: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    repositories.write(source, {"ggml/ggml.c": "int ggml(void) { return 7; }\nchar large[1 << 22] = {1};\n"})
    with small_disk(cache, "16m"):
        assert "does not know" not in told(str(source), cache)
        shutil.rmtree(cache / "pytest-rwkvperf" / "sources" / "llama.cpp" / "built")
        shutil.rmtree(cache / "pytest-rwkvperf" / "sources" / "llama.cpp" / "work")
        (cache / "ballast").write_bytes(b"x" * (11 << 20))
        line = told(str(source), cache)
        assert line.startswith("StorageError the disk became full while llama.cpp in ")
        assert line.endswith("make room and run this again")
        (cache / "ballast").unlink()
        assert works(told(str(source), cache))
        fill(cache / "ballast")
        repositories.write(source, {"new": "1"})
        assert told(str(source), cache).startswith("StorageError")


def test_no_compiler_is_one_sentence(source: Path, tmp_path: Path) -> None:
    line = told(str(source), tmp_path / "cache", {"CXX": "no-such-compiler"})
    assert line.startswith("BackendMissingError there is no no-such-compiler on PATH")
    only = tmp_path / "bin"
    only.mkdir()
    (only / "git").symlink_to(str(shutil.which("git")))
    line = told(str(source), tmp_path / "cache", {"PATH": str(only)})
    assert line.startswith("BackendMissingError there is no cmake on PATH, which building from source needs; install")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["bisect", "llama.cpp", "main..gone", "--repo", "{source}"], 2, "has no revision 'gone'"),
        (["bisect", "llama.cpp", "main", "--repo", "{source}"], 2, "'main' is not a range; write GOOD..BAD"),
        (["bisect", "llama.cpp", "main..main", "--repo", "/none"], 2, "--repo=/none is no git repository"),
        (["bisect", "numpy", "a..b", "--repo", "{source}"], 2, "numpy is no engine that is built from source"),
        (
            ["bisect", "llama.cpp", "a..b", "--repo", "http://127.0.0.1:9/x"],
            2,
            "127.0.0.1:9/x cannot be read (git: fatal",
        ),
        (["ab", "llama.cpp@gone", "--repo", "{source}"], 2, "has no revision 'gone'"),
        (["ab", "http://127.0.0.1:9/x@main"], 2, "http://127.0.0.1:9/x cannot be read (git: fatal"),
        (["ab", "https://me:hush@host/x@main"], 2, "https://host/x was given with a password"),
        (["ab", "numpy==2.0", "--repo", "{source}"], 2, "--repo is the repository of ENGINE@REVISION"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_sentence(
    arguments: list[str], status: int, said: str, source: Path, tmp_path: Path
) -> None:
    words = [word.format(source=source) for word in arguments]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "pytest_rwkvperf.cli", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (status, "")
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_is_not_committed_is_said_not_to_take_part(source: Path, tmp_path: Path) -> None:
    repositories.git(source, "commit", "-q", "--allow-empty", "-m", "second")
    repositories.write(source, {"ggml/ggml.c": "int ggml(void) { return 8; }\n"})
    # Without a compiler the search ends after what is said at its beginning.
    own = {"PYTHONPATH": str(CHECKOUT), "XDG_CACHE_HOME": str(tmp_path / "cache"), "CXX": "no-such-compiler"}
    command = [sys.executable, "-m", "pytest_rwkvperf.cli", "bisect", "llama.cpp", "main~1..main", f"--repo={source}"]
    environment = {**os.environ, **own}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "has uncommitted changes, which no commit has: they take no part" in done.stderr
    assert "there is no no-such-compiler on PATH" in done.stderr
