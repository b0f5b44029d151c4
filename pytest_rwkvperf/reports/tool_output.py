"""What each engine's own tool would have printed, with this run's figures: what people post, in the form they know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.reports import llama_bench
from pytest_rwkvperf.reports.markdown import escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_rwkvperf.core.samples import Turn
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
            if speed := _all_tokens_over_all_time(case, item.workload):
                name = escape(model.file_name or model.name)
                lines.append(f"| {name:<56} | {int8:>10} | {float4:>12} | {item.workload:>7} | {speed:>14.2f} |")
    return "\n".join(lines) + "\n"


def _quantized_layers(quant: str, layers: int) -> tuple[int, int]:
    """INT8 and 4-bit layers, as its options `--quant` and `--quant-nf4` count them."""
    name, _, count = quant.partition("@")
    wanted = int(count) if count.isascii() and count.isdigit() else layers  # a record may come from anywhere
    covered = min(wanted, layers or wanted)
    return (covered if name == "int8" else 0), (covered if name in _FLOAT4 else 0)


def _all_tokens_over_all_time(case: RecordedCase, workload: str) -> float:
    times = [time for row in case.times(workload) for time in row]
    return len(times) * Workload.parse(workload).tokens / sum(times) * 1e9 if times else 0.0


def chat_lines(cases: Sequence[RecordedCase]) -> str:
    """What the guide's script for the pip package prints after a turn: of the last repetition, then of all.

    A blank line and the quant stand between cases, which are runs of the script. The guide's chat tells video memory on
    CUDA too; so do these lines where the run was that chat.
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
        if workload.kind == "generation" and (times := [time for row in case.times(item.workload) for time in row]):
            yield "\n".join([strategy, *_answer_lines([(workload.tokens, time / 1e9) for time in times])])


def _answer_lines(answers: Sequence[tuple[int, float]]) -> list[str]:
    """From tokens and seconds of each answer: the last one, and all."""
    (tokens, seconds), count, total = answers[-1], *map(sum, zip(*answers, strict=True))
    return [
        f"[Current Generation]: {tokens} tokens | Time: {seconds:.2f}s | Speed: {tokens / seconds:.2f} tokens/s",
        f"[Total Statistics]: {count} tokens | Average Speed: {count / total:.2f} tokens/s",
    ]


def _memory_line(turn: Turn) -> list[str]:
    """Of CUDA; without it the script has no such line."""
    if not turn.vram_total_bytes:
        return []
    used, cached, total = (one / 2**30 for one in (turn.vram_bytes, turn.vram_reserved_bytes, turn.vram_total_bytes))
    share = used / total
    return [f"[Current VRAM Usage]: {used:.2f}GB/{total:.2f}GB ({share:.1%}) | Cache: {cached:.2f}GB"]


def llama_bench_table(record: Record, cases: Sequence[RecordedCase]) -> str:
    """llama-bench's own."""
    return llama_bench.as_markdown(llama_bench.rows_of(record, cases))
