"""Instructions of an engine's native code by function, by valgrind's callgrind: on one thread, on a small model.

callgrind executes AVX2 and not AVX-512, and takes some fifty times as long. So the model is the smallest synthetic one,
whose layers run the same code, and an engine that was compiled for AVX-512 needs a twin that was not.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import BackendError
from pytest_rwkvperf.core.work import Amount, WorkCount
from pytest_rwkvperf.machine.cupti import readable
from pytest_rwkvperf.witnesses.witness import CountedEngine, WitnessDefaults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.core.engine import Device, Engine
    from pytest_rwkvperf.witnesses.witness import Repeat

SHAPE = "synthetic:nano"

ALLOWANCE = 1e-3
"""Share by which counts of the same code may differ: memory lies elsewhere in each process, which changes how some
loops of the system's library start."""

_PREFILL, _GENERATION = 32, 4
"""Tokens that are counted at most."""

_DUMP = "callgrind.out"

_TOOL = 0x43540000
"""VG_USERREQ_TOOL_BASE('C', 'T') of valgrind.h, of which callgrind's requests count (callgrind.h)."""
_DUMP_STATS, _ZERO_STATS, _TOGGLE_COLLECT, _START, _STOP = (_TOOL + number for number in (0, 1, 2, 4, 5))
_RUNNING_ON_VALGRIND = 0x1001

_REQUEST = bytes.fromhex("4889f8 31d2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db 4889d0 c3")
"""mov rax,rdi; xor edx,edx; VALGRIND_DO_CLIENT_REQUEST_EXPR of valgrind.h for amd64-linux; mov rax,rdx; ret."""

_FOREIGN = ("python", "libpython", "_ctypes", "libffi", "ld-linux")
"""Beginnings of the names of files that are not the engine's: the interpreter and what calls the engine from it."""

_NAMED_SHARE = ALLOWANCE / 2
"""Functions with less of all instructions are added up; one on the edge then differs by less than is allowed."""

WITHOUT_AVX512 = {
    "CMAKE_ARGS": "-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON "
    "-DGGML_AVX512=OFF",
    "SKBUILD_INSTALL_STRIP": "false",  # or its static functions have no names
    # pip's cache knows a wheel by its version alone: not by how it was compiled
    "PIP_NO_CACHE_DIR": "1",
    "PIP_NO_BINARY": "llama-cpp-python",
}
"""Environment variables for the build of a twin."""


class Instructions(WitnessDefaults):
    """Instructions, by function and shared library, without those of the interpreter."""

    name = "instructions"
    unit = "instructions"
    allowance = ALLOWANCE
    shape = SHAPE
    command = (
        "valgrind",
        "--quiet",
        "--tool=callgrind",
        "--instr-atstart=no",
        "--collect-atstart=no",
        "--compress-strings=no",
        "--compress-pos=no",
        "--demangle=no",  # its form of templates begins with their result's type
        f"--callgrind-out-file=%q{{TMPDIR}}/{_DUMP}",
    )

    @property
    def variables(self) -> Mapping[str, str]:
        """Glibc's choice of string functions and thresholds fixed, hashes too, and one thread everywhere."""
        tunables = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-ERMS,-FSRM:glibc.cpu.x86_non_temporal_threshold=0x400000"
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        return {"GLIBC_TUNABLES": tunables, "PYTHONHASHSEED": "0", **threads}

    def suits(self, backend: str, device: Device) -> bool:
        """Whether the engine is llama.cpp on a CPU, or the oracle."""
        return backend in {"llama-cpp", "reference"} and device.kind == "cpu"

    def absence(self) -> str:
        """Valgrind is a program of the system."""
        if platform.machine() not in {"x86_64", "AMD64"}:
            return f"it counts on x86-64, not on {platform.machine()}"
        return "" if shutil.which("valgrind") else "valgrind is not installed; on Debian: apt-get install valgrind"

    def part(self, workload: Workload, chunk: int) -> Workload:
        """A short one, from the cleared state: what a context leaves has one size."""
        most = min(_PREFILL, chunk) if workload.kind == "prefill" else _GENERATION
        return replace(workload, tokens=min(workload.tokens, most), depth=0)

    def build_variables(self, account: str) -> Mapping[str, str]:
        """An engine with AVX-512 by its own account needs a twin."""
        enabled = (part.partition("=") for part in account.split("|"))
        avx512 = any("AVX512" in name and value.strip() == "1" for name, _, value in enabled)
        return WITHOUT_AVX512 if avx512 else {}

    def instrument(self) -> str:
        """The tool's release, and what it counts on."""
        return f"{_version()} callgrind, {SHAPE}, one thread, counting 1"

    def instruction_set(self) -> str:
        """What callgrind shows to the engine."""
        return f"{platform.machine()} AVX2"

    def count(self, engine: Engine, repeat: Repeat, tokens: int) -> WorkCount:
        """One repetition, after one that is executed and not counted.

        Raises:
            BackendError: this process does not run under callgrind.
        """
        ask = _asking()
        if not ask(_RUNNING_ON_VALGRIND):
            raise BackendError("this worker does not run under valgrind; take the witness by --rwkv-witness")
        repeat(engine)
        ask(_START)

        def counted(call: Callable[[], object]) -> object:
            ask(_TOGGLE_COLLECT)
            try:
                return call()
            finally:
                ask(_TOGGLE_COLLECT)

        repeat(CountedEngine(engine, counted, lambda: ask(_ZERO_STATS)).as_engine())
        ask(_DUMP_STATS)
        ask(_STOP)
        return WorkCount(tokens, functions(_newest_dump().read_text(errors="replace").splitlines()))


@cache
def _version() -> str:
    """As valgrind says it: `valgrind-3.19.0`."""
    return subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout.strip()


@cache
def _asking() -> Callable[..., int]:
    """A function that makes a client request of valgrind, which outside of it does nothing and gives 0."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_REQUEST)
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    function = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(start)

    def ask(code: int) -> int:
        arguments = (ctypes.c_uint64 * 6)(code)
        return int(function(ctypes.addressof(arguments)))

    ask.page = page  # type: ignore[attr-defined]  # the function's code lives as long as the function
    return ask


def _newest_dump() -> Path:
    """Callgrind numbers its dumps from 1."""
    folder = Path(os.environ["TMPDIR"])
    return max(folder.glob(f"{_DUMP}.*"), key=lambda path: int(path.suffix[1:]))


def functions(lines: Iterable[str]) -> dict[str, Amount]:
    """The instructions of each function itself, from a dump without compressed names and positions.

    Source: "Callgrind Format Specification" in valgrind's manual.
    """
    costs: Counter[str] = Counter()
    place, name, after_call = "", "", False
    for line in lines:
        key, separator, value = line.partition("=")
        if separator and key == "ob":
            place = Path(value).name
        elif separator and key == "fn":
            # Recursion is marked by a quote: walk'2.
            name = readable(value.partition("'")[0]).replace(" ", "_")
        elif separator and key == "calls":
            after_call = True  # the next line has the cost of what was called
        elif line[:1].isdigit():
            if not after_call and not place.startswith(_FOREIGN):
                costs[f"{name} {place}"] += int(line.split()[1])
            after_call = False
    least = _NAMED_SHARE * sum(costs.values())
    named = {function: Amount(cost) for function, cost in sorted(costs.items()) if cost >= least}
    rest = sum(cost for cost in costs.values() if cost < least)
    return {**named, "others": Amount(rest)} if rest else named


WITNESS = Instructions()
