"""What gets measured: workloads, cases, and the cross product of the two. Pure: no engine, no pytest."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from pytest_rwkvperf.core.engine_settings import in_label, in_words
from pytest_rwkvperf.core.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable

WorkloadKind = Literal["prefill", "generation"]

ProtocolName = Literal["uniform", "native"]
"""How a case is timed: `uniform`, alike for all engines, or `native`, as the engine's own tool does."""

_WORKLOAD = re.compile(
    r"(?P<kind>pp|tg)(?P<tokens>[1-9]\d{0,6})"
    r"(?:@d(?P<depth>[1-9]\d{0,6}))?(?:@b(?P<batch>[1-9]\d{0,6}))?(?:@d(?P<depth_last>[1-9]\d{0,6}))?",
    re.ASCII,
)
_KINDS: dict[str, WorkloadKind] = {"pp": "prefill", "tg": "generation"}
_PREFIXES: dict[WorkloadKind, str] = {kind: prefix for prefix, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True, order=True)
class Workload:
    """Prefill or generation of `tokens` tokens, after `depth` tokens of context outside the clock.

    `batch` sequences do this together; `tokens` and `depth` are those of each sequence.
    """

    kind: WorkloadKind
    tokens: int
    depth: int = 0
    batch: int = 1

    @classmethod
    def parse(cls, text: str) -> Workload:
        """Read `pp512`, `tg128`, `tg128@d4096`, `tg128@b8` or `tg128@d4096@b8`; `@b1` says the same as nothing.

        Raises:
            OptionError: the text is none of these.
        """
        match = _WORKLOAD.fullmatch(text.strip())
        if match is None or (match["depth"] and match["depth_last"]):
            message = (
                f"workload {text!r} is not understood; write ppN (prefill of N tokens) or tgN (generation), "
                "with @dN for N tokens of context before it and @bN for N sequences at once, "
                "for example pp512, tg128, tg128@d4096 or tg128@b8"
            )
            raise OptionError(message)
        depth = int(match["depth"] or match["depth_last"] or 0)
        return cls(_KINDS[match["kind"]], int(match["tokens"]), depth, int(match["batch"] or 1))

    @staticmethod
    def is_name(text: str) -> bool:
        """Whether `str` of a workload gives this text; `parse` also takes blanks, `@b1` and another order."""
        try:
            return str(Workload.parse(text)) == text
        except OptionError:
            return False

    @property
    def total_tokens(self) -> int:
        """Tokens of all sequences together."""
        return self.tokens * self.batch

    def __str__(self) -> str:
        depth = f"@d{self.depth}" if self.depth else ""
        batch = f"@b{self.batch}" if self.batch > 1 else ""
        return f"{_PREFIXES[self.kind]}{self.tokens}{depth}{batch}"


@dataclass(frozen=True, slots=True)
class Case:
    """One engine set up one way; its workloads share a worker process.

    `device` is the engine's own id (`cpu`, `cuda:0`, `vulkan:0`); `chunk` is the most tokens one prefill call gets.
    Figures of different protocols or settings are different cases, so that they are never compared.
    """

    backend: str
    model: str
    quant: str
    device: str
    threads: int
    chunk: int
    protocol: ProtocolName = "uniform"
    settings: tuple[tuple[str, str], ...] = ()
    """Names and values of the engine's own settings (`Backend.settings`), sorted; those left out are the engine's."""

    @property
    def key(self) -> str:
        """The name under which a baseline stores the case; stable across runs."""
        settings = [f"threads={self.threads} chunk={self.chunk}"]
        if self.protocol != "uniform":
            settings.append(f"protocol={self.protocol}")
        if self.settings:
            settings.append(in_words(self.settings))
        return f"{self.backend} | {self.model} | {self.quant} | {self.device} | {' '.join(settings)}"

    @property
    def label(self) -> str:
        """A short name for progress lines and test ids."""
        protocol = "" if self.protocol == "uniform" else f"-{self.protocol}"
        return f"{self.backend}-{self.quant}-{self.device}{protocol}{in_label(self.settings)}"

    @property
    def variant(self) -> str:
        """The quant, with the protocol where that is not the usual one, and the settings: a column of a table."""
        own = [self.protocol] * (self.protocol != "uniform") + [in_words(self.settings)] * bool(self.settings)
        return f"{self.quant} ({' '.join(own)})" if own else self.quant


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to judge: a workload of a case."""

    case: Case
    workload: Workload

    @property
    def id(self) -> str:
        """The test id's parameter part."""
        return f"{self.case.label}-{self.workload}"


@dataclass(frozen=True, slots=True)
class Question:
    """What one test asks: whether an item has become slower by more than `tolerance`, a share of its time."""

    item: Item
    tolerance: float


def disambiguated(cases: Iterable[Case]) -> dict[Case, Case]:
    """Each case as it is shown beside the others.

    Where cases differ in threads, their device says so (`cpu-t2`), and where they differ in the chunk, it is shown with
    their settings. A case's two protocols, which may differ in the chunk, stay together: both get the threads or
    neither.
    """
    unique = dict.fromkeys(cases)
    threads: dict[Case, set[int]] = {}
    chunks: dict[Case, set[int]] = {}
    for case in unique:
        threads.setdefault(_without_threads(case), set()).add(case.threads)
        chunks.setdefault(_without_chunk(case), set()).add(case.chunk)
    shown = {}
    for case in unique:
        place = f"{case.device}-t{case.threads}" if len(threads[_without_threads(case)]) > 1 else case.device
        chunk = [("chunk", str(case.chunk))] if len(chunks[_without_chunk(case)]) > 1 else []
        shown[case] = replace(case, device=place, settings=tuple(sorted([*case.settings, *chunk])))
    return shown


def _without_threads(case: Case) -> Case:
    return replace(case, threads=0, chunk=0, protocol="uniform")


def _without_chunk(case: Case) -> Case:
    return replace(case, threads=0, chunk=0)


def cross(cases: Iterable[Case], workloads: Iterable[Workload]) -> tuple[Item, ...]:
    """Every workload of every case; a case's items follow each other."""
    chosen = tuple(workloads)
    return tuple(Item(case, workload) for case in cases for workload in chosen)


Format = Literal["pth", "st", "gguf"]
"""A format of model files: rwkv's, web-rwkv's and llama.cpp's."""

FORMATS: tuple[Format, ...] = get_args(Format)
