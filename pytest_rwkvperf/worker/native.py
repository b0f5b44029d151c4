"""The native protocol: each engine's own tool's way of measuring, so that its published figures stay comparable.

* `web-rwkv bench` (examples/bench.rs, 0.10.20): five prefills, of one token where none is asked for, then five
  generations, without a warm-up and without clearing the state; softmax on the device and the largest probability on
  the host are timed too. It prints all tokens over all time.
* `llama-bench` (tools/llama-bench/llama-bench.cpp): each test warmed by one whole prompt, or one generated token; five
  repetitions from a cleared state; one wait for the device after a prompt and after each generated token; no logits
  copied. It prints the mean of the repetitions' speeds.
* the community guide's chat with the `rwkv` package: three turns of fixed prompts, sampling included; a turn's clock
  starts after its first token. It prints tokens over time; the guide reads it after the third turn.
* the executables `llama-bench`, `llama-batched-bench` and `web-rwkv bench` themselves (`backends/executables.py`,
  `backends/batched_bench.py`).

Random numbers have a fixed seed here. An engine is checked after it was timed, because the check would warm it.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.samples import REPETITIONS, SEED, Sample, ToolResult, Turn
from pytest_rwkvperf.worker.protocol import prefill

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_rwkvperf.backends.rwkv_pip import RwkvEngine
    from pytest_rwkvperf.backends.web_rwkv import WebRwkvEngine
    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.core.engine import Engine, Program

    Report = Callable[[str, float], None]

VERSION = 2
"""Figures of different versions are not compared. 2: web-rwkv's generations follow its prefills."""


@dataclass(frozen=True, slots=True)
class Tool:
    """Which workloads a tool measures, how, and the figure that it prints for one invocation's times."""

    takes: Callable[[Workload], bool]
    run: Callable[[Any, Sequence[Workload], int, Report], ToolResult]
    """Its first argument is what the backend opens: an Engine with what the tool needs beyond that, or a Program."""
    figure: Callable[[Sequence[int]], float]
    batches: bool = False
    """Whether it measures several sequences at once."""


def supported(backend: str, workload: Workload) -> bool:
    """Whether the backend's own tool measures a workload."""
    tool = TOOLS.get(backend)
    return tool is not None and (tool.batches or workload.batch == 1) and tool.takes(workload)


def run(
    backend: str, opened: Engine | Program, workloads: Sequence[Workload], chunk: int, report: Report
) -> ToolResult:
    """*worker* One invocation of the backend's own tool."""
    return TOOLS[backend].run(opened, workloads, chunk, report)


def figure(backend: str, times: Sequence[int]) -> int:
    """The nanoseconds per repetition that correspond to the speed which the tool prints for these times."""
    return round(TOOLS[backend].figure(times))


def mean_time(times: Sequence[int]) -> float:
    """All tokens over all time."""
    return sum(times) / len(times)


def time_of_mean_speed(times: Sequence[int]) -> float:
    """The mean of the speeds, which is the harmonic mean of the times."""
    return len(times) / sum(1 / time for time in times)


def _web_rwkv_bench(engine: WebRwkvEngine, workloads: Sequence[Workload], _chunk: int, report: Report) -> ToolResult:
    source = random.Random(SEED)
    samples: dict[str, tuple[Sample, ...]] = {}
    if all(workload.kind == "generation" for workload in workloads):
        # The program cannot leave the prefills out, so its generations are never the first to run.
        for _ in range(REPETITIONS):
            _timed_steps([[source.randrange(engine.vocabulary - 1)]], engine)
    for workload in sorted(workloads, key=lambda workload: workload.kind == "generation"):
        taken = []
        for index in range(REPETITIONS):
            report(f"{workload}, repetition {index + 1} of {REPETITIONS}", index / REPETITIONS)
            if workload.kind == "prefill":
                tokens = [source.randrange(engine.vocabulary - 1) for _ in range(workload.tokens)]
                taken.append(_timed_steps([tokens], engine))
            else:
                taken.append(_timed_steps([None] * workload.tokens, engine))
        samples[str(workload)] = tuple(taken)
    return ToolResult(samples)


def _timed_steps(steps: Sequence[Sequence[int] | None], engine: WebRwkvEngine) -> Sample:
    """Time forward passes; None stands for the most probable token of the pass before, 0 at first."""
    wall, clock, token = time.time(), time.perf_counter_ns, 0
    stamps = [clock()]
    for tokens in steps:
        token = int(engine.probabilities([token] if tokens is None else tokens).argmax())
        stamps.append(clock())
    shares = tuple(stop - start for start, stop in pairwise(stamps))
    return Sample(wall, stamps[-1] - stamps[0], shares if len(steps) > 1 else ())


def _llama_bench(engine: Engine, workloads: Sequence[Workload], chunk: int, report: Report) -> ToolResult:
    source = random.Random(SEED)
    samples: dict[str, tuple[Sample, ...]] = {}
    for workload in sorted(workloads, key=lambda workload: workload.kind == "generation"):
        tokens = [source.randrange(engine.vocabulary) for _ in range(workload.depth + workload.tokens)]
        context, measured = tokens[: workload.depth], tokens[workload.depth :]
        engine.clear()
        report(f"{workload}, warm-up", 0.0)
        _llama_test(engine, workload, measured if workload.kind == "prefill" else measured[:1], chunk)
        taken = []
        for index in range(REPETITIONS):
            report(f"{workload}, repetition {index + 1} of {REPETITIONS}", index / REPETITIONS)
            engine.clear()
            if context:
                prefill(engine, context, chunk)
                engine.synchronise()
            taken.append(_llama_test(engine, workload, measured, chunk))
        samples[str(workload)] = tuple(taken)
    return ToolResult(samples)


def _llama_test(engine: Engine, workload: Workload, tokens: Sequence[int], chunk: int) -> Sample:
    wall, clock = time.time(), time.perf_counter_ns
    stamps = [clock()]
    if workload.kind == "prefill":
        for start in range(0, len(tokens), chunk):
            engine.prefill(tokens[start : start + chunk])
        engine.synchronise()
        return Sample(wall, clock() - stamps[0], ())
    for token in tokens:
        engine.decode(token)
        engine.synchronise()
        stamps.append(clock())
    shares = tuple(stop - start for start, stop in pairwise(stamps))
    return Sample(wall, stamps[-1] - stamps[0], shares)


def _chat(engine: RwkvEngine, workloads: Sequence[Workload], chunk: int, report: Report) -> ToolResult:
    """The second and third turn count: the first one is cold, and the guide reads the third."""
    samples: dict[str, tuple[Sample, ...]] = {}
    turns: list[Turn] = []
    for workload in workloads:
        started = time.time()
        chat = engine.chat(workload.tokens, chunk, report)
        samples[str(workload)] = tuple(Sample(started, turn.nanoseconds, ()) for turn in chat[1:])
        turns += chat
    return ToolResult(samples, tuple(turns))


def _program(program: Program, workloads: Sequence[Workload], _chunk: int, report: Report) -> ToolResult:
    return program.bench(workloads, report)


TOOLS: Mapping[str, Tool] = {
    "web-rwkv": Tool(lambda workload: not workload.depth, _web_rwkv_bench, mean_time),
    "llama-cpp": Tool(lambda _workload: True, _llama_bench, time_of_mean_speed),
    "rwkv": Tool(lambda workload: workload.kind == "generation" and not workload.depth, _chat, mean_time),
    "llama-bench": Tool(lambda _workload: True, _program, time_of_mean_speed),
    "llama-batched-bench": Tool(
        lambda workload: workload.kind == "generation" or not workload.depth, _program, time_of_mean_speed, batches=True
    ),
    "web-rwkv-bench": Tool(lambda workload: not workload.depth, _program, mean_time),
}
"""The backends' own tools, by the backend's name."""

CHUNKS = {"rwkv": 256}
"""Tokens in one call, by backend, where the tool's own number is not the backend's `standard_chunk`."""
