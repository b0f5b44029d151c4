"""llama.cpp's own program for several sequences at once: `--rwkv-backend=llama-batched-bench:/path`.

It warms up with one batch of 16 tokens. Then, for each number of sequences, it times one prefill of all prompts and one
generation after it (tools/batched-bench/batched-bench.cpp). A number that is named five times is measured five times.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.backends.executables import InvokedProgram, LlamaBench, batches, gpu_layers, run_program
from pytest_rwkvperf.backends.llama_settings import SETTINGS
from pytest_rwkvperf.core import clock
from pytest_rwkvperf.core.engine_settings import Setting
from pytest_rwkvperf.core.errors import BackendError
from pytest_rwkvperf.core.samples import REPETITIONS, Sample, ToolResult
from pytest_rwkvperf.core.strict_json import with_zeros

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.core.engine import OpenRequest

_CONTEXT = 256
"""llama.cpp rounds each sequence's context up to a multiple of this."""

_IGNORED = "llama-batched-bench reads this and does not pass it on; leave it out"
_OWN_SETTINGS = tuple(
    Setting(each.name, "", refused=_IGNORED) if each.name in ("poll", "prio", "cpu-mask") else each for each in SETTINGS
)


@dataclass(frozen=True)
class LlamaBatchedBenchProgram(InvokedProgram):
    """llama-batched-bench with a model; `own_name` is its name of the device."""

    own_name: str

    def bench(self, workloads: Sequence[Workload], report: Callable[[str, float], None]) -> ToolResult:
        """One invocation for each length of prompts and of generations, with every number of sequences.

        Raises:
            BackendError: it failed, or samples are missing.
        """
        samples: dict[str, tuple[Sample, ...]] = {}
        for prompt, generated in dict.fromkeys(map(_lengths, workloads)):
            chosen = [workload for workload in workloads if _lengths(workload) == (prompt, generated)]
            report(f"{Path(self.path).name}: {', '.join(map(str, chosen))}", 0.0)
            started = clock.time_of_day()
            rows = self._rows(prompt, generated, [workload.batch for workload in chosen])
            for workload in chosen:
                field = "t_pp" if workload.kind == "prefill" else "t_tg"
                times = [row[field] for row in rows if row["pl"] == workload.batch]
                samples[str(workload)] = tuple(Sample(started, round(float(time) * 1e9), ()) for time in times)
        self.check_complete(samples, workloads)
        return ToolResult(samples)

    def _rows(self, prompt: int, generated: int, sequences: Sequence[int]) -> list[dict[str, Any]]:
        request = self.request
        batch, micro_batch = batches(request.chunk, request.settings)
        context = -(-(prompt + generated) // _CONTEXT) * _CONTEXT * max(sequences)
        command = [
            self.path, "-m", request.path, "-c", context, "-b", batch, "-ub", micro_batch, "-t", request.threads,
            "-ngl", gpu_layers(self.device, request.settings), *(("-dev", self.own_name) if self.own_name else ()),
            "-npp", prompt, "-ntg", generated, "-npl", ",".join(str(n) for n in sequences for _ in range(REPETITIONS)),
            "--output-format", "jsonl", *self._settings(),
        ]  # fmt: skip
        ended = run_program(command)
        try:
            lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
            return [json.loads(with_zeros(line)) for line in lines]
        except json.JSONDecodeError as error:
            raise BackendError(f"{self.path} printed invalid JSON: {error}; is it llama-batched-bench?") from error

    def _settings(self) -> list[str]:
        """The options for the settings that have a value; micro-batch and layers have theirs in every call."""
        given = self.request.settings
        options = ["-fa", given["flash-attn"]] if "flash-attn" in given else []
        if "mmap" in given:
            options += ["-lm", "mmap" if given["mmap"] == "on" else "none"]
        if "repack" in given:
            options.append("--repack" if given["repack"] == "on" else "--no-repack")
        return options


def _lengths(workload: Workload) -> tuple[int, int]:
    """Tokens of prompt and generation in which the program measures a workload."""
    return (workload.tokens, 0) if workload.kind == "prefill" else (workload.depth, workload.tokens)


@dataclass(frozen=True)
class LlamaBatchedBench(LlamaBench):
    """llama-batched-bench of any build that prints JSONL and lists devices, with llama.cpp's files and quants."""

    name: str = "llama-batched-bench"
    install: str = "build llama.cpp's target llama-batched-bench"
    settings: tuple[Setting, ...] = _OWN_SETTINGS
    max_batch: int = 256  # LLAMA_MAX_SEQ, src/llama-cparams.h

    def open(self, request: OpenRequest) -> LlamaBatchedBenchProgram:  # type: ignore[override]  # a Program, as Backend allows
        """Load nothing: the program loads the model at each invocation."""
        return LlamaBatchedBenchProgram(request, *self.located_device(request.device))
