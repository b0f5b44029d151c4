"""llama-batched-bench's two output formats (tools/batched-bench/batched-bench.cpp of llama.cpp), with our figures.

A line has the prefill of `pl` prompts and the generation after them. A prefill at a depth has no place there. Times are
made from the speeds of `store/speeds.py`, so that no wrong answer's is among them. Lines of JSON have two fields more,
`case` and `convention`, by which `store/exchanged.py` reads them back as what they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.backends.executables import LLAMA_BENCH_LAYERS, batches
from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.errors import ReportError
from pytest_rwkvperf.reports.exchange import Exchange
from pytest_rwkvperf.reports.markdown_text import clean
from pytest_rwkvperf.store import speeds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.store.record import Record
    from pytest_rwkvperf.store.speeds import Speed

_COLUMNS = (
    ("PP", 6), ("TG", 6), ("B", 4), ("N_KV", 6), ("T_PP s", 8), ("S_PP t/s", 8), ("T_TG s", 8), ("S_TG t/s", 8),
    ("T s", 8), ("S t/s", 8),
)  # fmt: skip
"""Headings and widths of the table."""


@dataclass(frozen=True, slots=True)
class Line:
    """Tokens of each prompt and generation, how many sequences, and tokens/s over all of them; 0 if not measured."""

    prompt: int
    generated: int
    sequences: int
    prefill: float = 0.0
    generation: float = 0.0

    @property
    def seconds(self) -> tuple[float, float]:
        """Of the prefill and of the generation; 0 if not measured."""
        return (
            self.sequences * self.prompt / self.prefill if self.prefill else 0.0,
            self.sequences * self.generated / self.generation if self.generation else 0.0,
        )

    @property
    def speed(self) -> float:
        """Tokens per second over what was measured."""
        tokens = self.prompt * bool(self.prefill) + self.generated * bool(self.generation)
        return self.sequences * tokens / sum(self.seconds)

    @property
    def positions(self) -> int:
        """The tool's `n_kv`: tokens of all sequences."""
        return self.sequences * (self.prompt + self.generated)


@dataclass(frozen=True, slots=True)
class _Measured:
    """A case with its lines, the name of its series without a workload, and its convention."""

    case: Case
    name: str
    convention: str
    lines: tuple[Line, ...]

    @property
    def settings(self) -> dict[str, int]:
        """What the tool prints of how it was run. -1 stands for `auto` of flash attention, and for every layer."""
        case, own = self.case, dict(self.case.settings)
        of_program = case.backend == "llama-batched-bench"
        usual = batches(case.chunk, own) if of_program else (case.chunk, int(own.get("ubatch", case.chunk)))
        layers = int(own.get("n-gpu-layers", LLAMA_BENCH_LAYERS if of_program else -1))
        return {
            "n_kv_max": max(line.positions for line in self.lines),
            "n_batch": usual[0],
            "n_ubatch": usual[1],
            "flash_attn": {"off": 0, "on": 1}.get(own.get("flash-attn", "auto"), -1),
            "is_pp_shared": 0,
            "n_gpu_layers": 0 if case.device == "cpu" else layers,
            "n_threads": case.threads,
            "n_threads_batch": case.threads,
        }


def as_jsonl(record: Record) -> str:
    """`--output-format jsonl`."""
    return "".join(
        json.dumps({**measured.settings, **_figures(line), "case": measured.name, "convention": measured.convention})
        + "\n"
        for measured in _measured(record)
        for line in measured.lines
    )


def as_markdown(record: Record) -> str:
    """`--output-format md`: a table for each case, below its name and how it was run."""
    return "\n".join(_table(measured) for measured in _measured(record))


def _figures(line: Line) -> dict[str, float]:
    prefill, generation = line.seconds
    figures = {
        "pp": line.prompt,
        "tg": line.generated,
        "pl": line.sequences,
        "n_kv": line.positions,
        "t_pp": prefill,
        "speed_pp": line.prefill,
        "t_tg": generation,
        "speed_tg": line.generation,
        "t": prefill + generation,
        "speed": line.speed,
    }
    return {name: round(value, 6) for name, value in figures.items()}


def _table(measured: _Measured) -> str:
    told = ", ".join(f"{name} = {value}" for name, value in measured.settings.items())
    widths = [width for _, width in _COLUMNS]
    lines = [
        f"|{' | '.join(name.rjust(width) for name, width in _COLUMNS)} |",
        f"|{'-|-'.join('-' * width for width in widths)}-|",
    ]
    for line in measured.lines:
        cells = (text.rjust(width) for text, width in zip(_cells(line), widths, strict=True))
        lines.append(f"|{' | '.join(cells)} |")
    return "\n".join([clean(measured.name), "", f"llama_batched_bench: {told}", "", *lines, ""])


def _cells(line: Line) -> list[str]:
    """The texts of a line, in the order of `_COLUMNS`."""
    counts = [line.prompt, line.generated, line.sequences, line.positions]
    prefill, generation = line.seconds
    timed = ((prefill, line.prefill), (generation, line.generation), (prefill + generation, line.speed))
    return [*map(str, counts), *(text for seconds, speed in timed for text in (f"{seconds:.3f}", f"{speed:.2f}"))]


def _measured(record: Record) -> list[_Measured]:
    """Every case with a speed that may count and that the tool measures.

    Raises:
        ReportError: there is none.
    """
    by_case: dict[Case, dict[Workload, Speed]] = {}
    for case, item, speed in speeds.of_items(record):
        by_case.setdefault(case, {})[Workload.parse(item.workload)] = speed
    found = []
    for case, taken in by_case.items():
        if chosen := lines({workload: speed.value for workload, speed in taken.items()}):
            first = next(iter(taken.values()))
            found.append(_Measured(case, speeds.case_series(case), first.convention.id, tuple(chosen)))
    if not found:
        raise ReportError(
            "no speed may count that llama-batched-bench measures: prefills without context, and generations; "
            "choose --format json"
        )
    return found


def lines(taken: Mapping[Workload, float]) -> list[Line]:
    """The lines of a case: each generation with the prefill of its context, then the prefills without a generation."""
    found = []
    left = {
        (each.tokens, each.batch): speed for each, speed in taken.items() if each.kind == "prefill" and not each.depth
    }
    prefills = dict(left)
    for each, speed in taken.items():
        if each.kind == "generation":
            read = (each.depth, each.batch)
            left.pop(read, None)
            found.append(Line(each.depth, each.tokens, each.batch, prefills.get(read, 0.0), speed))
    found += [Line(tokens, 0, batch, speed) for (tokens, batch), speed in left.items()]
    return _sorted(found)


def _sorted(found: Iterable[Line]) -> list[Line]:
    """In the tool's order."""
    return sorted(found, key=lambda line: (line.prompt, line.generated, line.sequences))


JSONL = Exchange(as_jsonl)
MARKDOWN = Exchange(as_markdown)
