"""What measuring leaves behind: figures by hand, the way through JSON, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.core.samples import Sample
from pytest_rwkvperf.machine.cupti import DeviceTime
from pytest_rwkvperf.measure import record
from pytest_rwkvperf.measure.measurement import Measurement, Memory, summary
from pytest_rwkvperf.measure.process import typed
from pytest_rwkvperf.measure.record import CaseRecord
from pytest_rwkvperf.stats.estimates import estimate_rate
from tests.unit.building import MODEL, make_record, make_run, record_of

PREFILL, GENERATION = Workload("prefill", 512), Workload("generation", 2)
RECORD = make_record(
    make_run(load=3_000_000_000, peak=5, pp512=[400, 100, 200], tg2=[50, 70]),
    make_run(load=1_000_000_000, peak=9, pp512=[300, 300], tg2=[90]),
    make_run(load=1_500_000_000, peak=7, pp512=[900], tg2=[10]),
)


# Figures


def test_throughput_is_the_workloads_tokens_over_its_own_times() -> None:
    assert RECORD.times(PREFILL) == ((400, 100, 200), (300, 300), (900,))
    for workload, tokens in ((PREFILL, 512), (GENERATION, 2)):
        rate = Measurement(RECORD, workload).tokens_per_second
        assert rate == estimate_rate(RECORD.times(workload), tokens)
    # Medians 200, 300 and 900 ns, whose geometric mean is 377.98.
    assert Measurement(RECORD, PREFILL).tokens_per_second.median == pytest.approx(512e9 / 54_000_000 ** (1 / 3))


def test_the_time_to_the_first_token_is_the_median_of_the_processes_medians() -> None:
    assert Measurement(RECORD, PREFILL).time_to_first_token_seconds == pytest.approx(300e-9)
    assert Measurement(RECORD, GENERATION).time_to_first_token_seconds is None


def test_the_latency_between_tokens_is_taken_over_every_token() -> None:
    measurement = Measurement(RECORD, GENERATION)
    shares = [25, 25, 35, 35, 45, 45, 5, 5]
    latency = measurement.inter_token_latency_seconds()
    assert latency == pytest.approx([np.percentile(shares, 50) / 1e9, np.percentile(shares, 99) / 1e9])
    assert measurement.inter_token_latency_seconds([0, 100]) == pytest.approx([5e-9, 45e-9])
    assert Measurement(RECORD, PREFILL).inter_token_latency_seconds() is None


def test_memory_is_the_largest_process_and_loading_the_median_one() -> None:
    measurement = Measurement(RECORD, PREFILL)
    assert measurement.memory == Memory(peak_rss_bytes=9, file_bytes=MODEL.file_bytes)
    assert measurement.load_seconds == pytest.approx(1.5)
    assert measurement.conditions == RECORD.conditions


def test_device_time_is_a_share_of_the_median_repetition_that_nothing_recorded() -> None:
    taken = DeviceTime(tokens=16, wall_nanoseconds=9000, busy_nanoseconds=240, kernels=1, copies=0, launches=1)
    first = replace(RECORD.runs[0], device_time={"tg2": taken})
    timed = replace(RECORD, runs=(first, *RECORD.runs[1:]))
    generation = Measurement(timed, GENERATION)
    assert generation.device_seconds_per_token == pytest.approx(15e-9)
    # Medians 60, 90 and 10 ns for two tokens.
    assert generation.device_share == pytest.approx(30 / 60)
    assert Measurement(timed, PREFILL).device_share is None
    assert Measurement(timed, PREFILL).device_seconds_per_token is None
    assert record.from_json(record.to_json(timed), CaseRecord) == timed


def test_samples_keep_their_processes_and_order() -> None:
    samples = Measurement(RECORD, PREFILL).samples
    assert [[sample.nanoseconds for sample in row] for row in samples] == [[400, 100, 200], [300, 300], [900]]


def test_a_cases_line_says_every_workload_and_what_ended_it() -> None:
    line = summary(record_of([[10**9], [10**9], [10**9]]), "llama-cpp-q8_0-cpu-t2")
    assert line == "llama-cpp-q8_0-cpu-t2: pp512 512.0 t/s ± 2.6%; 3 processes, ended by precision"


# No figures


@pytest.mark.parametrize("broken", [make_record(), make_record(make_run(pp512=[1]), make_run(pp512=[]))])
def test_a_process_without_samples_gives_no_figure(broken: record.CaseRecord) -> None:
    with pytest.raises(MeasurementError, match=r"llama-cpp \| .*: pp512 has a process without samples; measure again"):
        broken.times(PREFILL)


def test_a_workload_that_was_not_timed_gives_no_figure() -> None:
    with pytest.raises(MeasurementError, match="tg128 has a process without samples"):
        _ = Measurement(RECORD, Workload("generation", 128)).tokens_per_second


@pytest.mark.parametrize("value", [0, -5])
def test_a_time_that_is_not_positive_gives_no_figure(value: int) -> None:
    with pytest.raises(MeasurementError, match="pp512 has a time that is not positive; the clock is broken"):
        record_of([[1, 2], [3, value]]).times(PREFILL)


# Through JSON


def test_a_record_is_the_same_after_its_way_through_json() -> None:
    assert record.from_json(record.to_json(RECORD), CaseRecord) == RECORD
    assert record.from_json(record.to_json(RECORD).decode(), CaseRecord) == RECORD


@given(st.lists(st.lists(st.integers(1, 2**62), min_size=1, max_size=4), max_size=4))
def test_times_are_kept_to_the_nanosecond(times: list[list[int]]) -> None:
    taken = record_of(times)
    assert record.from_json(record.to_json(taken), CaseRecord) == taken


def test_a_records_text_does_not_depend_on_the_order_of_its_parts() -> None:
    run = make_run(pp512=[1], tg2=[2])
    backwards = replace(run, samples=dict(reversed(run.samples.items())), warmups=dict(reversed(run.warmups.items())))
    assert record.to_json(make_record(run)) == record.to_json(make_record(backwards))


@pytest.mark.parametrize("place", range(0, 1200, 37))
def test_a_record_that_breaks_off_is_refused(place: int) -> None:
    data = record.to_json(RECORD)
    assert place < len(data)
    with pytest.raises(MeasurementError, match=r"a record cannot be read: .*; measure again"):
        record.from_json(data[:place], CaseRecord)


@pytest.mark.parametrize("data", ["", "[]", "{}", "null", '{"case": NaN}', b"\xff"])
def test_what_is_no_record_is_refused(data: bytes | str) -> None:
    with pytest.raises(MeasurementError, match="a record cannot be read"):
        record.from_json(data, CaseRecord)


def test_a_record_with_a_field_of_another_type_is_refused_and_named() -> None:
    raw = json.loads(record.to_json(RECORD))
    raw["runs"][1]["samples"]["pp512"][0]["nanoseconds"] = 1.5
    with pytest.raises(MeasurementError, match="nanoseconds"):
        record.from_json(json.dumps(raw), CaseRecord)


# A worker's answer


def test_a_workers_answer_becomes_a_sample() -> None:
    answer = {"started": 1.5, "nanoseconds": 7, "token_nanoseconds": [3, 4]}
    assert typed(answer, Sample) == Sample(1.5, 7, (3, 4))


@pytest.mark.parametrize(
    "answer",
    [
        {},
        None,
        [1, 2, 3],
        {"started": 1.5, "nanoseconds": 7},
        {"started": 1.5, "nanoseconds": 7.5, "token_nanoseconds": []},
        {"started": 1.5, "nanoseconds": "7", "token_nanoseconds": []},
        {"started": None, "nanoseconds": 7, "token_nanoseconds": []},
        {"started": 1.5, "nanoseconds": 7, "token_nanoseconds": [None]},
    ],
)
def test_an_answer_that_is_no_sample_is_refused(answer: dict[str, object]) -> None:
    with pytest.raises(MeasurementError, match="the worker's Sample is unusable: "):
        typed(answer, Sample)
