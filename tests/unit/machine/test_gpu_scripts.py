"""What the scripts of benchmarks/gpu make of what they recorded or timed."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.machine import cupti
from pytest_rwkvperf.machine.cupti import Recorded, Recorder, union
from pytest_rwkvperf.machine.cupti_buffers import Activity
from pytest_rwkvperf.store.record import dumps
from tests.scripted.with_cupti.cupti import cupti as fake
from tests.unit.building import record_of, recorded, report_record

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path(__file__).parents[3] / "benchmarks" / "gpu"
KERNELS = runpy.run_path(str(FOLDER / "profile_kernels.py"))
WIDTH = runpy.run_path(str(FOLDER / "width.py"))
REPORT = runpy.run_path(str(FOLDER / "report.py"))
INTERVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), min_size=1, max_size=12)

# profile_kernels.py


@given(INTERVALS)
def test_gaps_and_what_is_covered_make_up_the_whole(pairs: list[tuple[int, int]]) -> None:
    intervals = [(start, start + length) for start, length in pairs]
    gaps = KERNELS["gaps"](intervals)
    whole = max(end for _, end in intervals) - min(start for start, _ in intervals)
    assert sum(gaps) + union(intervals) == whole
    assert all(gap > 0 for gap in gaps)


def test_a_generation_is_told_by_token_and_a_prefill_as_one() -> None:
    kernels = [Activity("k", 1000 * index + 1, 1000 * index + 601, 1) for index in range(32)]
    recorded = Recorded((*kernels, Activity("[copy]", 31_700, 31_800, 2)), (0, 32_000), 40_000)
    decode = KERNELS["step_of"](recorded, [64_000, 16_000, 32_000], KERNELS["WORKLOADS"]["decode"])
    assert decode["wall_ms"] == pytest.approx(0.002)
    assert decode["device_ms"] == pytest.approx((32 * 600 + 100) / 16e6)
    assert decode["device_share"] == pytest.approx(19_300 / 32_000)
    assert (decode["kernels"], decode["copies"], decode["launches"]) == (2, 1 / 16, 2 / 16)
    assert (decode["gaps"], decode["median_gap_us"]) == (2, 0.4)
    assert decode["longest"][0] == {"name": "k", "count": 2, "us": pytest.approx(1.2)}
    prefill = KERNELS["step_of"](recorded, [32_000], KERNELS["WORKLOADS"]["prefill512"])
    assert prefill["kernels"] == 32
    assert prefill["device_ms"] == pytest.approx(0.0193)


class Engine:
    """Computes for as long as the clock of this test says."""

    vocabulary = 100

    def __init__(self) -> None:
        self.now = 10**12

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - every word of an engine takes as long
        def take(*_words: object) -> None:
            self.now += 1_000_000

        return take


def test_both_workloads_are_timed_before_anything_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    monkeypatch.setattr("time.perf_counter_ns", lambda: engine.now)
    monkeypatch.setattr(cupti, "import_module", lambda _name: fake)
    monkeypatch.setattr(cupti, "_recorder", Recorder)
    fake._stamps.clear()
    found = KERNELS["profiled"](engine)
    assert {*found} == {"prefill512", "decode"}
    assert found["decode"]["wall_ms"] == pytest.approx(2)
    assert found["decode"]["device_ms"] == pytest.approx(1)
    text = KERNELS["table"]([{"file": "a.gguf", **found}, {"file": "b.pth", "failed": "ended with -6: one\nlast line"}])
    assert [line.split()[:2] for line in text.splitlines()[1:4]] == [
        ["a.gguf", "prefill512"], ["a.gguf", "decode"], ["b.pth", "last"],
    ]  # fmt: skip
    assert text.splitlines()[-1].split()[-1] == "[copy]"
    json.dumps(found)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["model.st"], "neither .gguf nor .pth: model.st"),
        (["model.gguf", "--here"], "cupti-python is not installed: pip"),
    ],
)
def test_a_profile_that_cannot_be_had_says_why(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["profile_kernels.py", *arguments])
    monkeypatch.setattr(cupti, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit, match=re.escape(told)):
        KERNELS["main"]()


# width.py


def row(size: float, median: float, backend: str = "web-rwkv", quant: str = "fp16") -> dict[str, Any]:
    return {"backend": backend, "quant": quant, "shape": "32x512", "bytes": size,
            "median_ms": median, "fastest_third_ms": median / 2}  # fmt: skip


def test_a_line_tells_what_no_byte_costs_from_what_each_does() -> None:
    rows = [row(size, 5 + size / 1e6 / 1000) for size in (1e8, 1e9, 5e9)]  # 1000 GB/s beyond 5 ms
    (line,) = WIDTH["lines_of"](rows)
    assert line["median_ms"]["at_no_bytes_ms"] == pytest.approx(5)
    assert line["median_ms"]["gigabytes_per_second"] == pytest.approx(1000)
    assert line["median_ms"]["share_of_the_heaviest"] == pytest.approx(0.5)
    assert line["fastest_third_ms"]["at_no_bytes_ms"] == pytest.approx(2.5)
    assert "5.000 ms at no bytes, 50% of the heaviest's; beyond that 1000 GB/s" in WIDTH["table"](rows, [line])


def test_time_that_does_not_grow_with_bytes_has_no_bandwidth_and_two_models_no_line() -> None:
    rows = [row(1e8, 6.0), row(1e9, 6.0), row(5e9, 6.0), row(1e8, 1.0, "rwkv"), row(1e9, 2.0, "rwkv")]
    (line,) = WIDTH["lines_of"](rows)
    assert line["median_ms"]["gigabytes_per_second"] is None
    assert "more bytes take no more time" in WIDTH["table"](rows, [line])


def test_a_format_that_takes_other_time_for_its_bytes_has_a_line_of_its_own() -> None:
    rows = [row(size / divisor, 5 + size / 1e9, quant=quant)
            for quant, divisor in (("fp16", 1), ("nf4", 4)) for size in (1e8, 1e9, 5e9)]  # fmt: skip
    rates = {line["quant"]: line["median_ms"]["gigabytes_per_second"] for line in WIDTH["lines_of"](rows)}
    assert rates == {"fp16": pytest.approx(1000), "nf4": pytest.approx(250)}


@given(st.lists(st.floats(0.1, 1e3), min_size=1, max_size=50))
def test_the_fastest_third_is_no_slower_than_the_rest(tokens: Sequence[float]) -> None:
    found = WIDTH["figures"](tokens)
    assert min(tokens) <= found["fastest_third_ms"] <= found["median_ms"] <= max(tokens)


def test_two_fast_tokens_of_three_are_told_apart() -> None:
    found = WIDTH["figures"]([7.6, 7.6, 15.0] * 10)
    assert (found["median_ms"], found["fastest_third_ms"]) == (7.6, 7.6)
    assert found["mean_ms"] == pytest.approx(10.07, abs=0.01)


@pytest.mark.parametrize("shape", ["2.9b", "1x256", "32x100", "32x0512000", "x"])
def test_a_shape_is_layers_and_a_width_that_every_format_takes(shape: str) -> None:
    with pytest.raises(SystemExit, match="is no LAYERSxWIDTH"):
        WIDTH["model_of"](shape)


def test_models_of_other_shapes_are_other_files() -> None:
    one, other = WIDTH["model_of"]("32x512"), WIDTH["model_of"]("32x1024")
    assert (one.shape.layers, one.shape.width, one.shape.rank_g) == (32, 512, 128)
    assert one.content_hash != other.content_hash


def test_a_token_that_follows_the_clearing_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WIDTH["tokens_of"].__globals__, "SPAN_SECONDS", 0.0)
    worker = SimpleNamespace(request=lambda *_words, **_more: {"token_nanoseconds": [9_000_000, 2_000_000, 3_000_000]})
    clock = iter([0.0, 2.0, 3.0, 3.0, 4.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    assert WIDTH["tokens_of"](worker) == [2.0, 3.0]


# report.py


@pytest.mark.parametrize("step", ["slowdown", "threads"])
def test_what_was_only_judged_is_no_figure_and_still_counts_as_a_machine(tmp_path: Path, step: str) -> None:
    """The next machine has a number of its own, though the one before left no figure."""
    told: dict[str, Any] = {}
    figures = []
    for name in (step, step, "llama-cpp"):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        record = report_record(recorded(record_of([[10**9] * 3] * 3)))
        (folder / f"{name}.json").write_text(dumps(record), encoding="utf-8")
        told = REPORT["gathered"]([folder], told)
        figures.append([row["machine"].partition(",")[0] for row in told["rows"]])
    assert [one["machine"] for one in told["verdicts"]] == [1, 2, 3]
    assert figures == [[], [], ["machine 3"]]


# proof.py


def test_each_step_can_begin_where_a_command_may_run_for_nine_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))  # it imports its neighbour
    proof = runpy.run_path(str(FOLDER / "proof.py"))
    assert {*proof["SECONDS"]} < {*proof["STEPS"]}
    assert max(*proof["SECONDS"].values(), proof["OTHER_SECONDS"]) < 9 * 60
