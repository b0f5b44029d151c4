"""How much work an engine did for a workload, as a witness counted it: a figure that a busy machine does not change."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

WorkVerdict = Literal["SAME WORK", "MORE WORK", "LESS WORK", "OTHER WORK"]
"""OTHER: as much in all, by other operators."""


class Amount(NamedTuple):
    """How often one operator ran in a repetition. A tuple, so that it takes one line of a baseline's JSON.

    `bytes` is the size of the results in new memory, 0 where the witness does not see them. `nanoseconds` is the time
    that the operator took, which is no exact figure; 0 where it was not timed.
    """

    number: int
    bytes: int = 0
    nanoseconds: int = 0


@dataclass(frozen=True, slots=True)
class WorkCount:
    """What a witness counted in one repetition.

    An operator's name is its own up to the first space; shapes or the kernel's name follow it.
    """

    tokens: int
    """Tokens of the counted part of the workload: at most a chunk of a prefill, some tokens of a generation."""
    operators: dict[str, Amount]
    peak_bytes: int = 0
    """The most memory that results held at one time; 0 where the witness does not see it."""
    nanoseconds: tuple[int, ...] = ()
    """The whole time of each timed repetition, on the device or the host; empty where none was timed."""
    launches: int = 0
    """What the host started on a device, a CUDA graph once; 0 where the witness does not see it."""

    @property
    def count(self) -> int:
        """How often all operators ran together."""
        return sum(amount.number for amount in self.operators.values())

    @property
    def bytes(self) -> int:
        """Size of all operators' results in new memory."""
        return sum(amount.bytes for amount in self.operators.values())

    def by_name(self) -> dict[str, Amount]:
        """The operators without their shapes, those with the same name added up."""
        summed: dict[str, Amount] = {}
        for name, amount in self.operators.items():
            known = summed.get(own := name.partition(" ")[0], Amount(0))
            summed[own] = Amount(*(ours + theirs for ours, theirs in zip(known, amount, strict=True)))
        return summed


@dataclass(frozen=True, slots=True)
class Reading:
    """What one witness counted of a case, by workload."""

    witness: str
    unit: str
    """What it counts: operations, nodes, instructions, kernels."""
    instrument: str
    """What counted, with the version of what its counts depend on beside the engine."""
    workloads: dict[str, WorkCount] = field(default_factory=dict)
    allowance: float = 0.0
    """The share by which counts of the same code may differ; 0 for an exact witness."""
    instruction_set: str = ""
    """The instruction set that counted instructions belong to; empty where it does not matter."""

    def without(self, workloads: Container[str]) -> Reading:
        """The reading without some workloads."""
        kept = {name: count for name, count in self.workloads.items() if name not in workloads}
        return replace(self, workloads=kept)

    def like(self, other: Reading) -> bool:
        """Whether the two may be compared: the same witness, instrument and instruction set."""
        return (self.witness, self.unit, self.instrument, self.instruction_set) == (
            other.witness,
            other.unit,
            other.instrument,
            other.instruction_set,
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """One operator that did more or less than before; `old` or `new` is nothing where it was or is not there."""

    operator: str
    old: Amount
    new: Amount


@dataclass(frozen=True, slots=True)
class WorkJudgement:
    """What the witnesses say of an item: the verdict, and one sentence for each witness that could be compared."""

    verdict: WorkVerdict
    sentences: tuple[str, ...]


def comparable_counts(
    old: Sequence[Reading], new: Sequence[Reading], workload: str
) -> Iterator[tuple[Reading, WorkCount, WorkCount]]:
    """Each new reading that has an old one like it, with the old and the new count of the same part of a workload."""
    for reading in new:
        before = next((each for each in old if each.like(reading)), None)
        then, now = before.workloads.get(workload) if before else None, reading.workloads.get(workload)
        if then is not None and now is not None and then.tokens == now.tokens:
            yield reading, then, now


def differences(old: WorkCount, new: WorkCount, allowance: float = 0.0) -> list[Difference]:
    """The operators whose numbers or bytes differ by more than a share of all, the largest difference first."""
    names = dict.fromkeys([*old.operators, *new.operators])
    pairs = [Difference(name, _amount(old, name), _amount(new, name)) for name in names]
    least = allowance * old.count
    changed = [
        each
        for each in pairs
        if abs(each.new.number - each.old.number) > least or (not allowance and each.new.bytes != each.old.bytes)
    ]
    return sorted(changed, key=_size, reverse=True)


def _size(each: Difference) -> tuple[int, ...]:
    """How large a difference is: by number, then bytes, then time."""
    return tuple(abs(now - before) for before, now in zip(each.old, each.new, strict=True))


def _amount(count: WorkCount, name: str) -> Amount:
    return count.operators.get(name, Amount(0))


def problem(readings: tuple[Reading, ...]) -> str:
    """What is wrong with stored readings; empty if nothing is."""
    for reading in readings:
        for name, count in reading.workloads.items():
            if count.tokens < 1 or any(min(amount) < 0 for amount in count.operators.values()):
                return f"the witness {reading.witness} has an unusable count of {name}"
    return ""
