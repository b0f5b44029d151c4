"""What holds for every RWKV-7 engine, whatever its speed: the recurrent state has one size at any depth.

So a token after a long context is the same work as a token after none, and no memory is needed for the context. An
engine that is slower or larger after a context does work that the model does not ask for. None of this needs a stored
figure: each is a comparison of two workloads of one run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_rwkvperf.core.cases import Case, Workload

if TYPE_CHECKING:
    from pytest_rwkvperf.core.engine import DeviceKind

Quantity = Literal["time", "memory"]


@dataclass(frozen=True, slots=True)
class Invariant:
    """The claim that a `tested` workload needs no more time per token, or no more memory, than a `reference`."""

    name: str
    claim: str
    """The same in words, for people."""
    tested: Workload
    reference: Workload
    quantity: Quantity = "time"

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """What must be measured in the same processes."""
        return (self.reference, self.tested)


@dataclass(frozen=True, slots=True)
class InvariantQuestion:
    """What one test asks: whether an invariant is broken by more than `tolerance`, a share of time or memory."""

    case: Case
    invariant: Invariant
    tolerance: float

    @property
    def id(self) -> str:
        """The test id's parameter part."""
        return f"{self.case.label}-{self.invariant.name}"


@dataclass(frozen=True, slots=True)
class Lengths:
    """Numbers of tokens: of the context, of a prompt (another one is twice as long), and of a generation."""

    depth: int
    prompt: int
    generated: int


LENGTHS = (
    Lengths(4096, 512, 64),
    Lengths(2048, 512, 64),
    Lengths(1024, 256, 32),
    Lengths(512, 128, 16),
    Lengths(256, 64, 8),
)
"""The lengths that are tried, from the usual ones to those for the slowest devices. A shorter context shows less of a
cost that grows with it."""

CONTEXT_SECONDS = 10.0
"""How long reading the context may take, once in each process."""

_OPERATIONS_PER_SECOND: dict[DeviceKind, float] = {"gpu": 5e12, "cpu": 2e10, "software": 5e8}
"""What a slow device of each kind reaches in a prefill, for the choice of lengths alone: the engines on one core of a
server, and web-rwkv on llvmpipe there."""


def lengths_for(kind: DeviceKind, parameters: int) -> Lengths:
    """The longest lengths that a device is likely to manage in CONTEXT_SECONDS.

    A token costs 2 operations per parameter that takes part in it: all but the embedding and the head. Chosen before
    anything is measured, so that the same command always asks the same.
    """
    feasible = CONTEXT_SECONDS * _OPERATIONS_PER_SECOND[kind] / (2 * parameters)
    return next((lengths for lengths in LENGTHS if lengths.depth <= feasible), LENGTHS[-1])


def all_of(lengths: Lengths) -> tuple[Invariant, ...]:
    """Every invariant, for these lengths."""
    depth, prompt, generated = lengths.depth, lengths.prompt, lengths.generated
    generation, prefill = Workload("generation", generated), Workload("prefill", prompt)
    deep_generation = Workload("generation", generated, depth)
    return (
        Invariant(
            "generation-depth", f"a token after {depth} tokens of context takes no longer", deep_generation, generation
        ),
        Invariant(
            "prefill-depth",
            f"a prompt after {depth} tokens of context takes no longer",
            Workload("prefill", prompt, depth),
            prefill,
        ),
        Invariant(
            "prefill-length",
            "a prompt of twice the length takes no longer per token",
            Workload("prefill", 2 * prompt),
            prefill,
        ),
        Invariant(
            "memory-depth",
            f"{depth} tokens of context need no memory",
            Workload("prefill", prompt, depth),
            Workload("prefill", 2 * prompt),
            "memory",
        ),
    )
