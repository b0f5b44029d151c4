"""What was timed: one repetition of a workload, and one invocation of an engine's own tool."""

from __future__ import annotations

from dataclasses import dataclass

REPETITIONS = 5
"""How often web-rwkv's `bench` and llama-bench repeat a workload."""

SEED = 42
"""The seed for what these tools draw at random."""

CHECK_SEED, KNOWN_SEED = 7, 11
"""Seeds of two prompts: that of the parity check, and the known prompt of timed repetitions, which no check feeds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition: when it started (Unix time, seconds), its time, and the time of each generated token."""

    started: float
    nanoseconds: int
    token_nanoseconds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer of the chat: its timed tokens, their nanoseconds, and the memory after them.

    Bytes: resident, and on CUDA what torch has allocated and reserved, and what the device has in all.
    """

    tokens: int
    nanoseconds: int
    rss_bytes: int
    vram_bytes: int = 0
    vram_reserved_bytes: int = 0
    vram_total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ToolResult:
    """One invocation of a tool: samples by workload, the chat's turns, and the versions that the tool prints."""

    samples: dict[str, tuple[Sample, ...]]
    turns: tuple[Turn, ...] = ()
    versions: dict[str, str] | None = None
