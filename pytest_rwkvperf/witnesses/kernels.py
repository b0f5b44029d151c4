"""Kernels, copies and fills on a CUDA device, with their time there, by CUPTI."""

from __future__ import annotations

import re
from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.work import Amount, WorkCount
from pytest_rwkvperf.machine import cupti
from pytest_rwkvperf.witnesses.witness import WitnessDefaults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.core.engine import Device, Engine
    from pytest_rwkvperf.machine.cupti_buffers import Activity
    from pytest_rwkvperf.witnesses.witness import Repeat

_SETTLING = 3
"""Repetitions that do not count: torch's script executor optimizes after two, llama.cpp records CUDA graphs."""

_REPETITIONS = 5
"""Repetitions of which the device time is taken; kernels are counted in the last one."""

_GROUPS = (
    ("copy", ("[copy]",)),
    ("fill", ("[fill]", "fillfunctor")),
    ("wkv", ("wkv",)),
    (
        "matmul",
        ("gemm", "gemv", "nvjet", "mul_mat", "matmul", "cutlass", "cublas", "splitk", "dot_kernel", "quantize_q8"),
    ),
    ("norm", ("norm",)),
    ("reduce", ("reduce", "sum_rows", "softmax", "argmax")),
    ("move", ("cpy", "copy", "concat", "cat", "get_rows", "gather", "index", "scatter")),
    ("elementwise", ("elementwise", "vectorized", "bcast", "unary", "scale", "_op_kernel", "fused_")),
)
"""Which operator a kernel belongs to: the first group of which a word is in its name."""


_HASH = re.compile(r"_\d{12,}$")
"""At the end of the names that torch's script compiler gives to kernels of its own."""


class Kernels(WitnessDefaults):
    """What the device did for the engine, whatever the host waited for meanwhile."""

    name = "kernels"
    unit = "kernels and copies"

    def suits(self, backend: str, device: Device) -> bool:  # noqa: ARG002 - the Protocol's signature
        """Whether the device is CUDA's, with any engine."""
        return device.id.startswith("cuda:")

    def absence(self) -> str:
        """CUPTI comes with a package."""
        return "" if cupti.installed() else "CUPTI is not installed: pip install cupti-python"

    def instrument(self) -> str:
        """The release of the package, which has CUPTI's own."""
        return f"CUPTI {version('cupti-python')}, counting 1"

    def count(self, engine: Engine, repeat: Repeat, tokens: int) -> WorkCount:
        """The last of some recorded repetitions, and the device time of each.

        Raises:
            DeviceError: CUPTI refused, or recorded nothing.
        """
        settling = [_SETTLING, *[0] * (_REPETITIONS - 1)]
        repetitions = [cupti.record(engine, repeat, count) for count in settling]
        within = repetitions[-1].within()
        busy = tuple(recorded.busy_nanoseconds for recorded in repetitions)
        return WorkCount(tokens, operators(within), nanoseconds=busy, launches=len({each.launch for each in within}))


def operators(activities: Sequence[Activity]) -> dict[str, Amount]:
    """Kernels by operator and name: how many ran, and for how long."""
    counts = Counter(activity.name for activity in activities)
    lengths: Counter[str] = Counter()
    for activity in activities:
        lengths[activity.name] += activity.end - activity.start
    summed: dict[str, Amount] = {}
    for name in sorted(counts):
        readable = _HASH.sub("", cupti.readable(name))
        own = f"{operator_of(readable)} {readable}"
        known = summed.get(own, Amount(0))  # names that are cut may be alike
        summed[own] = Amount(known.number + counts[name], 0, known.nanoseconds + lengths[name])
    return summed


def operator_of(kernel: str) -> str:
    """The operator that a kernel belongs to, by words in its name."""
    name = kernel.lower()
    return next((group for group, words in _GROUPS if any(word in name for word in words)), "other")


WITNESS = Kernels()
