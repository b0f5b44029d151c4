"""The history's tables, as the newest migration leaves them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text

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
    Column("high", Float(53)),  # null where one process bounds nothing
    Column("verdict", Text),  # null where the test asked for none
    Column("ratio", Float(53)),  # to the baseline; null without one
    Column("peak_rss_bytes", BigInteger, nullable=False),
    Index("figures_series", "case_key", "workload"),
)

VERSIONS = Table(
    "versions",
    METADATA,
    Column("run", Text, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("case_key", Text, primary_key=True),  # empty for what the whole run shares: system and drivers
    Column("name", Text, primary_key=True),
    Column("version", Text, nullable=False),
)
