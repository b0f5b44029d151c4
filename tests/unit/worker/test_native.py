"""The tools' own ways of measuring: what is called, in which order, and what each tool makes of its times."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_rwkvperf.core.cases import Case, Item, Workload
from pytest_rwkvperf.reports import llama_bench_rows, native_ratio
from pytest_rwkvperf.verdict import accept
from pytest_rwkvperf.verdict.judged import Reference
from pytest_rwkvperf.verdict.judgement import judge
from pytest_rwkvperf.worker import native
from tests.unit.building import CASE, make_record, make_run, record_of, recorded, report_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

PREFILL, GENERATION = Workload("prefill", 40), Workload("generation", 3)
NATIVE = replace(CASE, protocol="native")


def silent(_sentence: str, _fraction: float) -> None:
    """Progress nobody needs."""


@dataclass
class Noting:
    """An engine that notes what it is asked for; the most probable token after n tokens is n."""

    calls: list[str] = field(default_factory=list)
    vocabulary: int = 100

    def clear(self) -> None:
        self.calls.append("clear")

    def prefill(self, tokens: Sequence[int]) -> None:
        assert all(0 <= token < self.vocabulary for token in tokens)
        self.calls.append(f"prefill {len(tokens)}")

    def decode(self, token: int) -> None:
        assert 0 <= token < self.vocabulary
        self.calls.append("decode")

    def synchronise(self) -> None:
        self.calls.append("wait")

    def logits(self) -> npt.NDArray[np.float32]:
        raise AssertionError("neither tool copies logits")

    def probabilities(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        self.calls.append(f"probabilities {len(tokens)}" if len(tokens) > 1 else f"token {tokens[0]}")
        shares: npt.NDArray[np.float32] = np.eye(self.vocabulary, dtype=np.float32)[len(self.calls)]
        return shares


def calls(backend: str, *workloads: Workload, chunk: int = 32) -> list[str]:
    engine = Noting()
    taken = native.run(backend, engine, workloads, chunk, silent)  # type: ignore[arg-type]
    assert {name: len(samples) for name, samples in taken.samples.items()} == dict.fromkeys(map(str, workloads), 5)
    assert all(sample.nanoseconds > 0 for samples in taken.samples.values() for sample in samples)
    return engine.calls


def test_web_rwkv_bench_neither_warms_up_nor_clears() -> None:
    """Five prefills first, in whatever order the workloads were asked for, then five generations from token 0."""
    told = calls("web-rwkv", GENERATION, PREFILL)
    assert told == [*["probabilities 40"] * 5, *[f"token {0 if index % 3 == 0 else index + 5}" for index in range(15)]]


def test_web_rwkv_bench_without_prefills_prefills_single_tokens() -> None:
    """As the program does, so that a cold start is in neither's generations."""
    told = calls("web-rwkv", GENERATION)
    assert [call.split()[0] for call in told[:5]] == ["token"] * 5
    assert told[5:] == [f"token {0 if index % 3 == 0 else index + 5}" for index in range(15)]


def test_llama_bench_warm_up_and_waits() -> None:
    prompt, clear = ["prefill 32", "prefill 8", "wait"], ["clear"]
    assert calls("llama-cpp", PREFILL) == (clear + prompt) * 6
    assert calls("llama-cpp", GENERATION) == [*clear, "decode", "wait", *(clear + ["decode", "wait"] * 3) * 5]


def test_llama_bench_reads_the_context_before_the_clock() -> None:
    told = calls("llama-cpp", Workload("generation", 1, depth=40))
    assert told == ["clear", "decode", "wait", *["clear", "prefill 32", "prefill 8", "wait", "decode", "wait"] * 5]


@pytest.mark.parametrize(
    ("backend", "workload", "measured"),
    [
        ("web-rwkv", "pp512", True),
        ("web-rwkv", "pp512@d64", False),
        ("llama-cpp", "tg128@d64", True),
        ("rwkv", "tg128", True),
        ("rwkv", "pp512", False),
        ("reference", "tg128", False),
        ("llama-cpp", "tg128@b2", False),
        ("web-rwkv", "pp512@b2", False),
    ],
)
def test_supported_workloads(backend: str, workload: str, measured: bool) -> None:  # noqa: FBT001
    assert native.supported(backend, Workload.parse(workload)) == measured


# What a process counts as: the figure its tool prints


def test_figures_of_web_rwkv_bench_and_llama_bench() -> None:
    """One repetition of 1 s and one of 3 s: 2 tokens in 4 s, or the mean of 1 and 1/3 tokens/s."""
    times = [10**9, 3 * 10**9]
    assert 1e9 / native.figure("web-rwkv", times) == pytest.approx(0.5)
    assert 1e9 / native.figure("llama-cpp", times) == pytest.approx(2 / 3)


def test_native_record_has_one_figure_per_process() -> None:
    record = make_record(make_run(pp512=[10**9, 3 * 10**9]), make_run(pp512=[10**9, 3 * 10**9]), case=NATIVE)
    assert record.times(Workload("prefill", 512)) == ((1_500_000_000,), (1_500_000_000,))
    uniform = make_record(*record.runs)
    assert uniform.times(Workload("prefill", 512)) == ((10**9, 3 * 10**9),) * 2
    (row,) = llama_bench_rows.rows(report_record(recorded(record)))
    assert row.avg_ts == pytest.approx(512 / 1.5)


# Native figures and uniform ones are never compared


def test_native_case_is_not_compared_with_a_uniform_baseline() -> None:
    runs = [make_run(pp512=[10**9] * 3) for _ in range(3)]
    uniform, own = make_record(*runs), make_record(*runs, case=NATIVE)
    (stored,) = accept.stored_cases([uniform], {uniform.case.key: {"pp512"}}, "2026-11-23T16:00:00Z")
    machine = report_record().fingerprint
    from pytest_rwkvperf.store.baseline import Baseline

    reference = Reference(machine, Baseline(machine).with_case(stored, replacing=False), None)
    assert judge(uniform, Item(uniform.case, Workload("prefill", 512)), reference, 0.05, 1).verdict != "NO-BASELINE"
    verdict = judge(own, Item(NATIVE, Workload("prefill", 512)), reference, 0.05, 1)
    assert verdict.verdict == "NO-BASELINE"
    assert "protocol=native" in verdict.reason


def test_a_native_session_is_stored_as_its_figures() -> None:
    own = make_record(make_run(pp512=[10**9, 3 * 10**9]), case=NATIVE)
    (stored,) = accept.stored_cases([own], {NATIVE.key: {"pp512"}}, "2026-11-23T16:00:00Z")
    assert stored.sessions[0].workloads == {"pp512": ((1_500_000_000,),)}


# Native beside uniform figures


def test_workload_timed_in_both_protocols_has_a_ratio() -> None:
    rwkv = Case("rwkv", "m", "fp16", "cpu", 2, 512)
    seconds = {
        (rwkv, "tg8"): 0.8,
        (replace(rwkv, protocol="native", chunk=256), "tg8"): 1.0,
        (CASE, "pp512"): 0.97,
        (replace(NATIVE, backend="llama-bench"), "pp512"): 1.0,
        (replace(NATIVE, quant="f16"), "pp512"): 1.0,
    }
    cases = [
        recorded(record_of([[round(time * 1e9)] * 2] * 2, workload, case)) for (case, workload), time in seconds.items()
    ]
    assert native_ratio.sentence(report_record(*cases)) == (
        "Native over uniform tokens/s: rwkv-fp16-cpu-native tg8 x0.80, llama-bench-q8_0-cpu-native pp512 x0.97."
    )
    assert native_ratio.sentence(report_record()) == ""


def test_llama_bench_format_prefers_native_rows() -> None:
    run = make_run(pp512=[10**9])
    both = report_record(recorded(make_record(run)), recorded(make_record(run, case=replace(NATIVE, chunk=256))))
    assert [row.n_batch for row in llama_bench_rows.rows(both)] == [256]


def test_uniform_key_does_not_name_the_protocol() -> None:
    assert CASE.key == "llama-cpp | synthetic:nano | q8_0 | cpu | threads=2 chunk=512"
    assert NATIVE.key == f"{CASE.key} protocol=native"
    assert json.dumps(CASE.label) == '"llama-cpp-q8_0-cpu"'
