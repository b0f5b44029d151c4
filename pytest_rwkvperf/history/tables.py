"""The history's tables, as the newest migration leaves them, and a run as their rows."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text

from pytest_rwkvperf.core import strict_json
from pytest_rwkvperf.core.errors import RecordError
from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_rwkvperf.store.record import Record

    Row = dict[str, Any]

METADATA = MetaData()

RUNS = Table(
    "runs",
    METADATA,
    Column("id", Text, primary_key=True),  # the record's own, so that a run sent twice is stored once
    Column("started", Text, nullable=False),  # UTC in ISO 8601, which sorts as text
    Column("machine", Text, nullable=False),  # the fingerprint's id
    Column("commit", Text, nullable=False),  # the revision under test, empty outside git
    Column("project_version", Text, nullable=False),
    Column("exit_status", Integer, nullable=False),
    Column("record", LargeBinary, nullable=False),  # the whole measurement record: JSON, compressed by zlib
    Index("runs_started", "started"),
)

FIGURES = Table(
    "figures",
    METADATA,
    Column("run", Text, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("case_key", Text, primary_key=True),  # backend | model | quant | device | settings
    Column("workload", Text, primary_key=True),
    Column("backend", Text, nullable=False),
    Column("quant", Text, nullable=False),
    Column("model_hash", Text, nullable=False),  # of the model's content
    Column("device_name", Text, nullable=False),
    Column("protocol", Integer, nullable=False),  # figures of two protocols are never compared
    Column("tokens_per_second", Float(53), nullable=False),
    Column("low", Float(53), nullable=False),  # of the 95 % interval
    Column("high", Float(53)),  # null if one process gives no bound
    Column("verdict", Text),  # null if the test did not ask for one
    Column("ratio", Float(53)),  # to the baseline; null without one
    Column("peak_rss_bytes", BigInteger, nullable=False),
    Index("figures_series", "case_key", "workload"),
)

VERSIONS = Table(
    "versions",
    METADATA,
    Column("run", Text, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("case_key", Text, primary_key=True),  # empty for the system and drivers, which all cases share
    Column("name", Text, primary_key=True),
    Column("version", Text, nullable=False),
)


def run_row(record: Record) -> Row:
    """A run as a row of `RUNS`."""
    return {
        "id": record.id,
        "started": record.started,
        "machine": record.fingerprint.id,
        "commit": record.commit,
        "project_version": record.project_version,
        "exit_status": record.exit_status,
        "record": zlib.compress(records.dumps(record).encode()),
    }


def figure_rows(record: Record) -> Iterator[Row]:
    """The run's speeds as rows of `FIGURES`. Failed cases and wrong answers have none."""
    for case, item in record.items():
        rate = item.typical_rate
        if case.measured is None or rate is None or item.verdict == "INVALID":
            continue
        yield {
            "run": record.id,
            "case_key": case.case.key,
            "workload": item.workload,
            "backend": case.case.backend,
            "quant": case.case.quant,
            "model_hash": case.measured.model.content_hash,
            "device_name": case.measured.device.name,
            "protocol": case.measured.protocol,
            "tokens_per_second": rate.median,
            "low": rate.low,
            "high": rate.high,
            "verdict": item.verdict,
            "ratio": item.comparison.deciding.ratio if item.comparison else None,
            "peak_rss_bytes": max(process.peak_rss_bytes for process in case.measured.runs),
        }


def version_rows(record: Record) -> list[Row]:
    """The versions of the system and of each measured case as rows of `VERSIONS`."""
    shared = {
        "operating system": record.system.operating_system,
        "Python": record.system.python,
        "pytest-rwkvperf": record.project_version,
        **record.system.drivers,
    }
    by_case = {"": shared, **{case.case.key: case.measured.versions for case in record.cases if case.measured}}
    return [
        {"run": record.id, "case_key": case, "name": name, "version": version}
        for case, versions in by_case.items()
        for name, version in versions.items()
    ]


def unpack_record(run: str, packed: bytes) -> Record:
    """The record in a row of `RUNS`. No more is unpacked than a record can have: the bytes may be anybody's.

    Raises:
        RecordError: the bytes are not a record.
    """
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(packed, strict_json.MAX_BYTES).decode()
    except (zlib.error, UnicodeDecodeError, TypeError) as error:
        raise _unpack_error(run, str(error)) from error
    if not unpacking.eof:
        limit = f"{strict_json.MAX_BYTES:,} bytes"
        raise _unpack_error(run, f"it is truncated, or larger than the {limit} that a record can have")
    return records.loads(text, Path(f"of run {run}"))


def _unpack_error(run: str, problem: str) -> RecordError:
    return RecordError(f"the stored record of run {run} cannot be unpacked: {problem}; restore the database")
