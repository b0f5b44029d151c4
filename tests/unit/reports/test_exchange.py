"""Formats of programs that watch speeds: what each one reads, the convention in each, and reading them back."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest

from pytest_rwkvperf.core.convention import Convention
from pytest_rwkvperf.core.errors import ReportError
from pytest_rwkvperf.reports import exchange, formats
from pytest_rwkvperf.store import exchanged, speeds
from tests.unit.building import CASE, make_record, make_run, recorded, report_record

if TYPE_CHECKING:
    from pytest_rwkvperf.store.record import Record

FORMATS = {
    "bencher": exchange.BENCHER,
    "github-benchmark": exchange.GITHUB_BENCHMARK,
    "otava": exchange.OTAVA,
    "openmetrics": exchange.OPENMETRICS,
}
RUNS = [make_run(pp512=[400_000_000, 600_000_000 + step], tg128=[10**9, 15 * 10**8 + step]) for step in (0, 10**7)]
UNIFORM = recorded(make_record(*RUNS))
NATIVE = recorded(make_record(*RUNS, case=replace(CASE, protocol="native", chunk=128)))
SET = recorded(make_record(*RUNS, case=replace(CASE, settings=(("mmap", "off"), ("ubatch", "64")))))
RECORD = report_record(UNIFORM, NATIVE, commit="0123456789abcdef")
PP512 = "llama-cpp synthetic:nano q8_0 cpu t2 pp512 [rwkvperf:uniform:v1:steady:c512]"
EVERY = pytest.mark.parametrize("form", FORMATS)


def text_of(form: str, record: Record = RECORD) -> str:
    return FORMATS[form].render(record, "en")[""]


@EVERY
def test_format_is_known_by_its_name(form: str) -> None:
    assert formats.load(form) is FORMATS[form]


@EVERY
def test_every_series_reads_back_with_its_convention_and_interval(form: str) -> None:
    found = exchanged.parse(text_of(form), Path("file"))
    assert found is not None
    assert [(speed.series, speed.convention) for speed in found] == [
        (speed.series, speed.convention) for speed in speeds.of_record(RECORD)
    ]
    assert {speed.convention.id for speed in found} == {
        "rwkvperf:uniform:v1:steady:c512",
        "rwkvperf:native:v1:once:c128",
    }
    for speed, item in zip(found, [*UNIFORM.items, *NATIVE.items], strict=True):
        rate = item.typical_rate
        assert rate is not None
        assert speed.value == pytest.approx(rate.median, rel=1e-5)
        if form != "otava":  # it has no intervals
            assert speed.low == pytest.approx(rate.low, rel=1e-5)
            assert speed.high == pytest.approx(rate.high, rel=1e-5)


@EVERY
def test_own_settings_are_part_of_a_series(form: str) -> None:
    found = exchanged.parse(text_of(form, report_record(UNIFORM, SET)), Path("file"))
    assert found is not None
    assert [speed.series for speed in found if "pp512" in speed.series] == [
        "llama-cpp synthetic:nano q8_0 cpu t2 pp512",
        "llama-cpp synthetic:nano q8_0 cpu t2 mmap=off ubatch=64 pp512",
    ]


def test_bencher_gets_its_metric_format() -> None:
    metrics = json.loads(text_of("bencher"))
    schema = json.loads(Path(__file__).with_name("bmf.json").read_text(encoding="utf-8"))  # bencher.dev/bmf.json
    jsonschema.Draft7Validator(schema).validate(metrics)
    figures = metrics[PP512]["throughput"]
    assert figures.keys() == {"value", "lower_value", "upper_value"}
    assert figures["lower_value"] < figures["value"] < figures["upper_value"]
    assert all(len(name) <= 1024 for name in metrics), "Bencher's own limit"


def test_github_benchmark_gets_entries_of_which_bigger_is_better() -> None:
    entries = json.loads(text_of("github-benchmark"))
    assert [entry.keys() for entry in entries] == [{"name", "unit", "value", "range", "extra"}] * 4
    first, (item, _) = entries[0], UNIFORM.items
    rate = item.typical_rate
    assert rate is not None
    assert rate.high is not None
    assert (first["name"], first["unit"]) == (PP512, "tokens/s")
    assert first["range"] == f"± {(rate.high - rate.low) / 2:.6g}"
    assert "convention: rwkvperf:uniform:v1:steady:c512\n" in first["extra"]


def test_otavas_rows_follow_one_header() -> None:
    header, row = csv.reader(io.StringIO(text_of("otava")))
    assert header[:4] == ["time", "commit", "record", PP512]
    assert row[:3] == ["2026-11-23T16:00:00Z", "0123456789abcdef", "f" * 32]
    assert all(float(value) > 0 for value in row[3:])
    later, earlier = (
        report_record(recorded(make_record(make_run(pp512=[nanoseconds]))), started=f"2026-11-{day}T16:00:00Z")
        for nanoseconds, day in ((10**9, 24), (5 * 10**8, 23))
    )
    both = text_of("otava", later) + text_of("otava", earlier).splitlines(keepends=True)[1]
    found = exchanged.parse(both, Path("file"))
    assert found is not None
    assert [speed.value for speed in found] == [512], "the newest row by its date"


def test_openmetrics_has_one_family_after_the_other() -> None:
    lines = text_of("openmetrics").splitlines()
    assert lines[-1] == "# EOF"
    names = [line.partition("{")[0].partition(" ")[0] for line in lines if not line.startswith("#")]
    assert [*dict.fromkeys(names)] == [
        "rwkvperf_tokens_per_second", "rwkvperf_tokens_per_second_low", "rwkvperf_tokens_per_second_high",
        "rwkvperf_run_started_timestamp_seconds", "rwkvperf_run_info",
    ]  # fmt: skip
    assert names == sorted(names, key=[*dict.fromkeys(names)].index)


@EVERY
def test_a_single_process_has_no_interval(form: str) -> None:
    found = exchanged.parse(text_of(form, report_record(recorded(make_record(make_run(pp512=[10**9]))))), Path("file"))
    assert found is not None
    assert [(speed.value, speed.low, speed.high) for speed in found] == [(512, None, None)]


@EVERY
def test_wrong_answers_and_voided_figures_are_left_out(form: str) -> None:
    right, other = UNIFORM.items
    wrong = replace(UNIFORM, items=(right, replace(other, verdict="INVALID")))
    throttled = replace(UNIFORM, items=(right, replace(other, voided="gpu")))
    for case in (wrong, throttled):
        record = report_record(case)
        assert "pp512" in text_of(form, record)
        assert "tg128" not in text_of(form, record)
        assert FORMATS[form].advice(record, "en", str) == [
            "Left out, as no verdict may rest on them: llama-cpp-q8_0-cpu tg128."
        ]
    with pytest.raises(ReportError, match="no speed may count"):
        text_of(form, report_record(replace(wrong, items=wrong.items[1:])))
    assert FORMATS[form].advice(RECORD, "en", str) == []


@EVERY
def test_hostile_names_stay_one_series(form: str) -> None:
    evil = '=cmd|"x",\\\n} 1\n# EOF\n[\x1b[31m]'
    case = replace(CASE, model=evil, quant='a"b', device="c\\d")
    record = report_record(recorded(make_record(*RUNS, case=case)), commit=evil)
    text = text_of(form, record)
    assert "\x1b" not in text
    found = exchanged.parse(text, Path("file"))
    assert found is not None
    assert len({speed.series for speed in found}) == 2
    assert {speed.convention for speed in found} == {Convention.of_case(case, 1)}
