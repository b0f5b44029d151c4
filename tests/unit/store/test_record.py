"""The format of records: round trips, refusal of invalid files, and the published schema."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_rwkvperf.core import strict_json
from pytest_rwkvperf.core.errors import RecordError
from pytest_rwkvperf.store import record as records
from pytest_rwkvperf.store.record import RecordedCase, RecordedItem, SkippedEngine
from tests.unit.building import CASE, make_record, make_run, recorded, report_record

PUBLISHED = Path(__file__).parents[3] / "docs" / "record.schema.json"
PATH = Path("run.json")

MEASURED = make_record(make_run(pp16=[10**7, 11 * 10**6], tg4=[4 * 10**7] * 3), make_run(pp16=[10**7], tg4=[10**7]))
FAILED = RecordedCase(CASE, None, None, (RecordedItem("pp16", None, "crashed", fails=True),), failure="died")
FULL = report_record(
    recorded(MEASURED, old=MEASURED), FAILED, skipped=(SkippedEngine("rwkv", "not installed"),), commit="c" * 40
)

TURN = {"tokens": 5, "nanoseconds": 0, "rss_bytes": 1}


def with_value(value: object, *path: str | int) -> str:
    """The full record's JSON with another value at a path."""
    raw: Any = json.loads(records.dumps(FULL))
    inner = raw
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return json.dumps(raw)


def test_a_record_survives_a_round_trip_with_its_schema_first_and_times_on_one_line() -> None:
    text = records.dumps(FULL)
    assert records.loads(text, PATH) == FULL
    assert text.startswith('{\n  "schema": 3,\n')
    assert '"token_nanoseconds": [10000000, 10000000, 10000000, 10000000]' in text


def test_fields_with_a_default_may_be_absent() -> None:
    raw = json.loads(records.dumps(FULL))
    for name in ("commit", "skipped"):
        del raw[name]
    assert records.loads(json.dumps(raw), PATH) == replace(FULL, commit="", skipped=())


# Invalid files


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid JSON"),
        ("[]", "no valid schema number"),
        (with_value(True, "schema"), "no valid schema number"),  # noqa: FBT003 - a JSON value
        (with_value(4, "schema"), "schema 4, this release reads up to 3; upgrade"),
        (with_value("a minute", "seconds"), "$.seconds"),
        (with_value(math.nan, "seconds"), "NaN is not a number"),
        (with_value(0, "seconds").replace('"seconds": 0', '"seconds": 1e999'), "too large"),
        (with_value(9, "speed"), "unknown key 'speed'"),
        (with_value("\ud800", "commit"), "not valid JSON"),
        (with_value("FASTER", "cases", 0, "items", 0, "verdict"), "$.cases[0].items[0].verdict"),
        (with_value("pp", "cases", 0, "items", 0, "workload"), "workload 'pp' is not understood"),
        (with_value(" pp16", "cases", 0, "items", 0, "workload"), "' pp16' names no workload"),
        (with_value({"pp": []}, "cases", 0, "measured", "runs", 0, "samples"), "'pp' names no workload"),
        (with_value(0, "cases", 0, "items", 0, "rate", "median"), "pp16 has a speed that is not positive"),
        (with_value(0, "cases", 0, "items", 0, "baseline", "processes"), "pp16 has a speed of no process"),
        (with_value(10**400, "system", "memory_bytes"), "is too large"),
        (with_value(1e308, "cases", 0, "measured", "runs", 0, "started"), "said to have started at 1e+308"),
        (with_value([TURN], "cases", 0, "measured", "runs", 0, "turns"), "a turn of the chat holds no usable time"),
        (with_value("vulkan:9", "cases", 0, "case", "device"), "its samples are those of llama-cpp"),
        (with_value([], "cases", 0, "measured", "runs"), "no process measured it"),
        (with_value(0, "cases", 0, "measured", "runs", 0, "samples", "pp16", 0, "nanoseconds"), "no usable times"),
        (with_value(10**19, "cases", 0, "old", "runs", 0, "samples", "pp16", 0, "nanoseconds"), "no usable times"),
    ],
)
def test_an_invalid_record_is_refused_with_the_file_and_the_field(text: str, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        records.loads(text, PATH)
    assert reason in str(caught.value)
    assert "run.json" in str(caught.value)


def test_a_missing_undecodable_or_too_large_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ü.json"
    with pytest.raises(RecordError, match=r"ü\.json is not there; give the file"):
        records.read(path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(RecordError, match="is not text"):
        records.read(path)
    monkeypatch.setattr(strict_json, "MAX_BYTES", 3)
    with pytest.raises(RecordError, match=r"cannot be read: .*more than the 3 bytes"):
        records.read(path)


@settings(max_examples=50)
@given(text=st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(RecordError):
        records.loads(text, PATH)


# The published schema


def test_the_published_schema_is_up_to_date() -> None:
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert published == _said_by_every_msgspec(records.json_schema()), (
        "renew it: rwkvperf report --schema > docs/record.schema.json"
    )


def _said_by_every_msgspec(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """A schema without what msgspec 0.23 has begun to add: objects that are empty by default, and keys' names."""
    if isinstance(schema, list):
        return [_said_by_every_msgspec(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    added = {"propertyNames", *(["default"] if schema.get("default") == {} else [])}
    return {name: _said_by_every_msgspec(value) for name, value in schema.items() if name not in added}


def test_a_validator_accepts_records_and_refuses_invalid_ones() -> None:
    schema = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(json.loads(records.dumps(FULL)))
    for text in (
        with_value(4, "schema"),
        with_value(9, "speed"),
        with_value("a minute", "seconds"),
        with_value("FASTER", "cases", 0, "items", 0, "verdict"),
        with_value(1, "cases", 0, "measured", "runs", 0, "speed"),
    ):
        assert not validator.is_valid(json.loads(text))
