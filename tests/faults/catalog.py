"""The catalog of faults in a worker process: how each is caused, what its tests must say, and how soon.

`tests/faults/test_catalog.py` tests all of them in one run; `benchmarks/faults/table.py` runs each alone and prints the
observed times and messages.
"""

from __future__ import annotations

import os
import re
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.sandbox import HANGS_FOR, HEALTHY, allowed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.faults.sandbox import ObservedRun, Sandbox

MODULES = {"llama-cpp": "llama_cpp", "rwkv": "tokenizers"}
"""The module that a fault needs if it uses a real engine's library."""

DEADLINE = f"{HANGS_FOR:.0f} s"
MEMORY = 256 << 20


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of one case: SCRIPTED_FAULT's script, a pattern of the tests' messages, and the seconds to notice.

    The script of a worker that ends before its first message is empty. `row` is the row in docs/reliability.md; `needs`
    is an engine whose library is used, or `cgroup`, a control group of memory that this user may make.
    """

    row: int
    name: str
    script: str
    sentence: str
    seconds: float = 1.0
    needs: str = ""

    @property
    def missing(self) -> str:
        """Why the fault cannot be caused here; empty if it can."""
        if self.needs in MODULES and find_spec(MODULES[self.needs]) is None:
            return f"{self.needs} is not installed"
        if self.needs == "cgroup":
            with small_memory() as group:
                return "" if group else "no control group of memory can be made here (root can, where one is mounted)"
        return ""


FAULTS = (
    Fault(1, "abort", "abort@decode", r"ended by SIGABRT during .* GGML_ASSERT\(scripted\) failed"),
    Fault(1, "a real GGML_ASSERT", "ggml-assert@decode", r"ended by SIGABRT .* GGML_ASSERT\(index", 2, "llama-cpp"),
    Fault(1, "segmentation fault", "segfault@prefill", r"ended by SIGSEGV during .* about to read address 0"),
    Fault(1, "exit in the middle", "exit3@clear", r"ended with exit code 3 during .* giving up"),
    Fault(2, "dead before its first message", "", r"exit code 127 during its first message .* libcudart\.so\.13"),
    Fault(3, "no memory, refused", "exhaust@decode", r"the engine raised \w*MemoryError: Unable to allocate 16\.0 GiB"),
    Fault(3, "no memory, killed", "starve@decode", r"SIGKILL, from the kernel's out-of-memory killer", 4, "cgroup"),
    Fault(3, "killed by somebody", "killed@logits", r"ended by SIGKILL \("),
    Fault(
        4, "a real Rust panic", "rust-panic@decode", r"raised PanicException: chunk size must be non-zero", 2, "rwkv"
    ),
    Fault(5, "hangs, TERM ignored", "hang@decode", rf"did not finish parity \({DEADLINE} allowed\)", 8.5),
    Fault(5, "hangs, signals blocked, GIL held", "deaf@decode", rf"did not finish parity \({DEADLINE} allowed\)", 8.5),
    Fault(5, "hangs with children", "hang-with-child@decode", rf"did not finish parity \({DEADLINE} allowed\)", 8.5),
    Fault(6, "garbled answer", "garble@decode", r"a line that is not JSON: b'\\x93NUMPY"),
    Fault(6, "endless answer", "huge@decode", r"a message of more than 4194304 bytes", 2),
    Fault(9, "NaN for a time", "nan-clock@decode", r"a figure of the engine is NaN or infinite"),
    Fault(9, "no time passes", "stopped-clock@decode", r"took 0 ns; the clock is broken"),
    Fault(9, "time runs backwards", "backward-clock@decode", r"took -\d+ ns; the clock is broken"),
    Fault(9, "a wrong answer", "wrong@logits", r"gives a wrong answer, so its speed counts for nothing"),
    Fault(15, "another device than asked", "other-device@open", r"was asked for spare:0 and took cpu"),
)


@contextmanager
def small_memory() -> Iterator[Path | None]:
    """A control group with little memory; None if this user cannot make one."""
    root = Path("/sys/fs/cgroup")
    parent = root / "memory" if (root / "memory").is_dir() else root
    limit = "memory.limit_in_bytes" if parent.name == "memory" else "memory.max"
    group = parent / f"rwkvperf-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        (group / limit).write_text(str(MEMORY), encoding="ascii")
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def run_with_faults(sandbox: Sandbox, faults: Sequence[Fault]) -> tuple[ObservedRun, dict[str, Fault]]:
    """Run once with a case for each fault; returns the run and the fault of each quant."""
    fault_by_quant = {f"int8@{number}": fault for number, fault in enumerate(faults)}
    script = ";".join(f"{fault.script}@{quant}" for quant, fault in fault_by_quant.items() if fault.script)
    at_start = next((quant for quant, fault in fault_by_quant.items() if not fault.script), "")
    hanging = " ".join(quant for quant, fault in fault_by_quant.items() if DEADLINE in fault.sentence)
    quants = f"--rwkv-quant={','.join([*fault_by_quant, HEALTHY])}"
    with small_memory() as group:
        result = sandbox.observe(
            quants, "--rwkv-device=spare:0", fault=script, hanging=hanging, at_start=at_start, cgroup=str(group)
        )
    return result, fault_by_quant


def broken_promises(result: ObservedRun) -> list[str]:
    """Promises that a run of `run_with_faults` broke as a whole."""
    healthy = [test.outcome for test in result.of(HEALTHY)]
    broken = {
        f"exit code {result.code}, not 1": result.code != 1,
        f"the case without a fault: {healthy}": healthy != ["passed", "passed"],
        "a traceback of this project's": f"{os.sep}pytest_rwkvperf{os.sep}" in result.text,
    }
    return [*result.problems(), *(promise for promise, is_broken in broken.items() if is_broken)]


def broken_fault_promises(fault: Fault, quant: str, result: ObservedRun) -> list[str]:
    """Promises that were broken about one fault."""
    tests = result.of(quant)
    sentences = [" ".join(test.text.split()) for test in tests]
    noticed = result.noticed(quant)
    broken = {
        f"outcomes {[test.outcome for test in tests]}": [test.outcome for test in tests] != ["failed", "failed"],
        f"not every test says {fault.sentence!r}: {sentences}": not all(
            re.search(fault.sentence, sentence) for sentence in sentences
        ),
        f"noticed after {noticed} s, promised {fault.seconds}": noticed is None
        or not 0 <= noticed <= allowed(fault.seconds),
    }
    return [promise for promise, is_broken in broken.items() if is_broken]
