"""A record's figures in the form in which each engine's own tool prints them, as people post results."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.reports import llama_bench, llama_bench_rows
from pytest_rwkvperf.reports.markdown_text import escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_rwkvperf.core.samples import Turn
    from pytest_rwkvperf.reports.llama_bench_rows import Row
    from pytest_rwkvperf.store.record import Record, RecordedCase

_FLOAT4 = ("nf4", "sf4")


def web_rwkv_table(cases: Sequence[RecordedCase]) -> str:
    """The table of the crate's `bench` example (examples/bench.rs, 0.10.20): all tokens over all time."""
    lines = [
        f"| {'model':<56} | quant_int8 | quant_float4 |    test |            t/s |",
        f"|{'-' * 58}|-----------:|-------------:|--------:|---------------:|",
    ]
    for case in cases:
        if case.measured is None:
            continue
        model = case.measured.model
        int8, float4 = _quantized_layers(case.case.quant, model.layers)
        for item in case.items:
            if times := _times(case, item.workload):
                speed = len(times) * Workload.parse(item.workload).tokens / sum(times) * 1e9
                name = escape(model.file_name or model.name)
                lines.append(f"| {name:<56} | {int8:>10} | {float4:>12} | {item.workload:>7} | {speed:>14.2f} |")
    return "\n".join(lines) + "\n"


def _quantized_layers(quant: str, layers: int) -> tuple[int, int]:
    """INT8 and 4-bit layers, as the options `--quant` and `--quant-nf4` of `bench` count them."""
    name, _, count = quant.partition("@")
    requested = int(count) if count.isascii() and count.isdigit() else layers  # a record's quant may be any text
    quantized = min(requested, layers or requested)
    return (quantized if name == "int8" else 0), (quantized if name in _FLOAT4 else 0)


def _times(case: RecordedCase, workload: str) -> list[int]:
    return [time for process in case.times(workload) for time in process]


def chat_lines(cases: Sequence[RecordedCase]) -> str:
    """What the guide's script for the pip package prints after a turn: of the last repetition, then of all.

    Each case is a run of the script, under a line with its strategy. A record of that chat (native protocol) on CUDA
    also has the line of video memory, as in the guide.
    """
    return "\n\n".join(block for case in cases for block in _chat_blocks(case)) + "\n"


def _chat_blocks(case: RecordedCase) -> Iterator[str]:
    measured = case.measured
    if measured is None:
        return
    strategy = f"# strategy: {measured.device.id} {case.case.quant}"
    if turns := measured.runs[-1].turns:
        answers = [(turn.tokens, turn.nanoseconds / 1e9) for turn in turns]
        yield "\n".join([strategy, *_answer_lines(answers), *_memory_line(turns[-1])])
        return
    for item in case.items:
        workload = Workload.parse(item.workload)
        if workload.kind == "generation" and (times := _times(case, item.workload)):
            yield "\n".join([strategy, *_answer_lines([(workload.tokens, time / 1e9) for time in times])])


def _answer_lines(answers: Sequence[tuple[int, float]]) -> list[str]:
    """The lines for the last answer and for all, from tokens and seconds of each."""
    (tokens, seconds), count, total = answers[-1], *map(sum, zip(*answers, strict=True))
    return [
        f"[Current Generation]: {tokens} tokens | Time: {seconds:.2f}s | Speed: {tokens / seconds:.2f} tokens/s",
        f"[Total Statistics]: {count} tokens | Average Speed: {count / total:.2f} tokens/s",
    ]


def _memory_line(turn: Turn) -> list[str]:
    """The line of video memory; the script has none without CUDA."""
    if not turn.vram_total_bytes:
        return []
    sizes = (turn.vram_bytes, turn.vram_reserved_bytes, turn.vram_total_bytes)
    used, cached, total = (size / 2**30 for size in sizes)
    return [f"[Current VRAM Usage]: {used:.2f}GB/{total:.2f}GB ({used / total:.1%}) | Cache: {cached:.2f}GB"]


def llama_bench_table(record: Record, cases: Sequence[RecordedCase]) -> str:
    """llama-bench's table; where llama.cpp writes `?B` for a size that it has no name for, with the parameters."""
    rows = llama_bench_rows.rows_of(record, cases)
    return llama_bench.as_markdown([replace(row, model_type=_with_size(row)) for row in rows])


def _with_size(row: Row) -> str:
    """The model's type with its parameters as llama.cpp's names have them: `450M`, `2.9B`."""
    count = row.model_n_params
    size = f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.0f}M"  # noqa: PLR2004 - a billion
    return row.model_type.replace(" ?B ", f" {size} ", 1)
