"""What was timed: one repetition of a workload, and what an engine's own tool tells."""

from __future__ import annotations

from dataclasses import dataclass

REPETITIONS = 5
"""Of both `bench` and llama-bench."""


SEED = 42


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition: when it started (Unix time, seconds), how long it took, and each generated token's share."""

    started: float
    nanoseconds: int
    token_nanoseconds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer of the chat: tokens that count, nanoseconds they took, and memory after them.

    Bytes: resident, and on CUDA what torch has allocated, has reserved, and what the device has in all.
    """

    tokens: int
    nanoseconds: int
    rss_bytes: int
    vram_bytes: int = 0
    vram_reserved_bytes: int = 0
    vram_total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What one invocation of a tool leaves: samples by workload, the chat's turns, and what the tool says of itself."""

    samples: dict[str, tuple[Sample, ...]]
    turns: tuple[Turn, ...] = ()
    versions: dict[str, str] | None = None
