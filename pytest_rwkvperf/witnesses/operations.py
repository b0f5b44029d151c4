"""The `rwkv` package's operations, by torch's dispatcher: calls by name and shapes, and the memory of their results."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.work import Amount, WorkCount
from pytest_rwkvperf.witnesses.witness import CountedEngine, WitnessDefaults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.core.engine import Device, Engine
    from pytest_rwkvperf.witnesses.witness import Repeat

_SETTLING = 2
"""Repetitions that do not count: in the first one torch's script executor profiles, in the second it optimizes."""

_PREFILL = 128
"""Tokens of a prefill that are counted at most: the package loops over them, with a dozen operations for each."""


@dataclass(slots=True)
class Tally:
    """What has been counted since the last `restart`."""

    calls: Counter[str] = field(default_factory=Counter)
    allocated: Counter[str] = field(default_factory=Counter)
    live: int = 0
    peak: int = 0
    _round: int = 0

    def restart(self) -> None:
        """Count from nothing; what was allocated before is no longer followed."""
        self.calls, self.allocated = Counter(), Counter()
        self.live = self.peak = 0
        self._round += 1

    def allocate(self, name: str, storage: Any, size: int) -> None:  # noqa: ANN401 - torch's
        """An operation made a result in new memory; followed until torch frees it."""
        self.allocated[name] += size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, self._round, size).atexit = False

    def _free(self, counted_in: int, size: int) -> None:
        if counted_in == self._round:
            self.live -= size

    def count(self, tokens: int) -> WorkCount:
        """As the witness's result."""
        operators = {name: Amount(calls, self.allocated[name]) for name, calls in sorted(self.calls.items())}
        return WorkCount(tokens, operators, self.peak)


class Operations(WitnessDefaults):
    """The operations that reach a device's kernels: torch's own, and those of a package's compiled extensions."""

    name = "operations"
    unit = "operations"

    def suits(self, backend: str, device: Device) -> bool:  # noqa: ARG002 - the Protocol's signature
        """Whether the engine is the `rwkv` package, on any device."""
        return backend == "rwkv"

    def part(self, workload: Workload, chunk: int) -> Workload:
        """As by default, but at most _PREFILL tokens of a prefill."""
        return super().part(workload, min(chunk, _PREFILL))

    def instrument(self) -> str:
        """Torch's own version does not belong to it: torch is part of what is under test."""
        return "torch's dispatch mode, counting 1"

    def count(self, engine: Engine, repeat: Repeat, tokens: int) -> WorkCount:
        """One repetition under the mode, after some without it."""
        for _ in range(_SETTLING):
            repeat(engine)
        tally = Tally()
        mode = _mode(tally)

        def counted(call: Callable[[], object]) -> object:
            with mode:
                return call()

        repeat(CountedEngine(engine, counted, tally.restart).as_engine())
        return tally.count(tokens)


def _mode(tally: Tally) -> Any:  # noqa: ANN401 - a class of torch, which the worker alone imports
    torch = import_module("torch")
    base: Any = import_module("torch.utils._python_dispatch").TorchDispatchMode

    class Counting(base):  # type: ignore[misc]  # torch is imported here alone
        def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's
            result = function(*args, **(kwargs or {}))
            given = [*_tensors(torch, args), *_tensors(torch, tuple((kwargs or {}).values()))]
            name = " ".join([function.name(), *("x".join(map(str, each.shape)) or "1" for each in given)])
            tally.calls[name] += 1
            known = {each.untyped_storage()._cdata for each in given}  # noqa: SLF001 - its identity, as torch's own tools take it
            for made in _tensors(torch, (result,)):
                storage = made.untyped_storage()
                if storage._cdata not in known:  # noqa: SLF001 - likewise
                    known.add(storage._cdata)  # noqa: SLF001 - likewise
                    tally.allocate(name, storage, storage.nbytes())
            return result

    return Counting()


def _tensors(torch: Any, values: Any) -> Iterator[Any]:  # noqa: ANN401 - torch's
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(torch, value)


WITNESS = Operations()
