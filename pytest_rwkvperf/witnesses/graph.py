"""llama.cpp's graph nodes, by ggml's evaluation callback: how many of each operator, and how long each took.

With the callback ggml computes node by node, fuses none and waits after each. So the times say which operator changed,
and do not add up to a repetition's.
"""

from __future__ import annotations

import ctypes
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from pytest_rwkvperf.backends import llama_cpp
from pytest_rwkvperf.core.work import Amount, WorkCount
from pytest_rwkvperf.witnesses.witness import CountedEngine, WitnessDefaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.core.engine import Device, Engine, OpenRequest
    from pytest_rwkvperf.witnesses.witness import Repeat

_SETTLING = 1
"""Repetitions that do not count: the first one allocates, and reads a context."""

_VIEWS = frozenset({"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE"})
"""Operators for which ggml computes nothing (ggml_compute_forward, ggml/src/ggml-cpu/ggml-cpu.c), as for an empty
result."""


class _Tensor(ctypes.Structure):
    """The beginning of struct ggml_tensor, ggml/include/ggml.h."""

    _fields_ = (("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("elements", ctypes.c_int64 * 4))


@cache
def _functions() -> tuple[Callable[[int], bytes], Callable[[int], int]]:
    """Ggml's own name of a node's operator, and the size of its result in bytes."""
    library = llama_cpp.ggml()
    describe, size = library.ggml_op_desc, library.ggml_nbytes
    describe.argtypes, describe.restype = [ctypes.c_void_p], ctypes.c_char_p
    size.argtypes, size.restype = [ctypes.c_void_p], ctypes.c_size_t
    return describe, size


@dataclass(slots=True)
class Nodes:
    """The nodes that ggml has computed since the last `restart`."""

    counts: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    times: Counter[str] = field(default_factory=Counter)
    _current: str = ""
    _began: int = 0

    def restart(self) -> None:
        """Count from nothing."""
        self.counts, self.sizes, self.times = Counter(), Counter(), Counter()

    def evaluate(self, tensor: int, asked: bool) -> bool:  # noqa: FBT001 - ggml's callback
        """Note a node: ggml asks before it whether to stop after it, and calls again when it is computed."""
        if not asked:
            self.times[self._current] += time.perf_counter_ns() - self._began
            return True  # go on
        describe, size = _functions()
        operator = describe(tensor).decode()
        shape = list(_Tensor.from_address(tensor).elements)
        if operator in _VIEWS or 0 in shape:
            return False
        while len(shape) > 1 and shape[-1] == 1:
            shape.pop()
        self._current = f"{operator} {'x'.join(map(str, shape))}"
        self.counts[self._current] += 1
        self.sizes[self._current] += size(tensor)
        self._began = time.perf_counter_ns()
        return True

    def count(self, tokens: int) -> WorkCount:
        """As the witness's result."""
        operators = {
            name: Amount(count, self.sizes[name], self.times[name]) for name, count in sorted(self.counts.items())
        }
        return WorkCount(tokens, operators, nanoseconds=(sum(self.times.values()),))


class Graph(WitnessDefaults):
    """The nodes of llama.cpp's graph, by operator and shape of the result."""

    name = "graph"
    unit = "nodes"

    def __init__(self) -> None:
        self._nodes = Nodes()

    def suits(self, backend: str, device: Device) -> bool:  # noqa: ARG002 - the Protocol's signature
        """Whether the engine is llama.cpp, on any device."""
        return backend == "llama-cpp"

    def instrument(self) -> str:
        """llama.cpp's version does not belong to it: it is what is under test."""
        return "ggml's evaluation callback, counting 1"

    def watched(self, request: OpenRequest) -> OpenRequest:
        """Ggml takes the callback when a context is made."""
        return replace(request, on_node=self._nodes.evaluate)

    def count(self, engine: Engine, repeat: Repeat, tokens: int) -> WorkCount:
        """The nodes of one repetition, after one that does not count."""
        for _ in range(_SETTLING):
            repeat(engine)
        repeat(CountedEngine(engine, lambda call: call(), self._nodes.restart).as_engine())
        return self._nodes.count(tokens)


WITNESS = Graph()
