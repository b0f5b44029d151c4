"""`rwkvperf explain`: what differs between two measurement records and may explain their speeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.paths import user_path
from pytest_rwkvperf.core.text import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_rwkvperf.cli.console import Console
    from pytest_rwkvperf.core.cause import Cause
    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem

HELP = """list the differences that may explain why one measurement record is slower than another
Shows each workload that both records (--rwkv-report=FILE.json) measured, the slowest first: its speeds, then the
differences, the most important first: operators whose time or number changed (if witnesses counted them), releases,
builds and variables of the engine, settings, and the machine. Cases are matched by engine, model and quant, and where
there are several, by all their settings. This is no verdict: rwkvperf compare says whether something got slower.

  rwkvperf explain yesterday.json today.json
  rwkvperf explain yesterday.json today.json --json
"""
PASSES_ON = False

_LABELS = {"operator": "time", "count": "number", "software": "software", "settings": "settings", "machine": "machine"}


@dataclass(frozen=True, slots=True)
class Explained:
    """A workload of both records: old and new tokens per second, `ratio` as new over old, and what differs."""

    case: str
    workload: str
    old: float
    new: float
    ratio: float
    causes: tuple[Cause, ...]


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("old", metavar="OLD", type=user_path, help="the older record")
    parser.add_argument("new", metavar="NEW", type=user_path, help="the record to explain")
    parser.add_argument("--json", action="store_true", help="print all differences as JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """Print what differs."""
    import msgspec

    from pytest_rwkvperf.core import strict_json
    from pytest_rwkvperf.core.errors import RecordError
    from pytest_rwkvperf.store import record

    found = sorted(_explain(record.read(options.old), record.read(options.new)), key=lambda each: each.ratio)
    if not found:
        raise RecordError(
            f"{options.old} and {options.new} have no workload in common that both measured; "
            "give two records of the same engine, model and quant"
        )
    if options.json:
        console.text(strict_json.dumps(msgspec.to_builtins(found), sort_keys=False))
    else:
        console.text(printable("\n".join(map(_text, found)), keep="\n"))
    return 0


def _explain(old: Record, new: Record) -> Iterator[Explained]:
    from pytest_rwkvperf.verdict import explaining

    for case, before in _matched(old, new):
        assert case.measured is not None  # noqa: S101 - as `_matched` gives them
        assert before.measured is not None  # noqa: S101 - as above
        there = explaining.of_record(before.measured, old.fingerprint, old.system)
        here = explaining.of_record(case.measured, new.fingerprint, new.system)
        stored = {item.workload: rate for item in before.items if (rate := _rate(item))}
        for item in case.items:
            if (rate := _rate(item)) and (then := stored.get(item.workload)):
                found = explaining.causes(there, here, item.workload)
                yield Explained(case.case.label, item.workload, then, rate, rate / then, found)


def _rate(item: RecordedItem) -> float | None:
    return item.typical_rate.median if item.typical_rate else None


def _matched(old: Record, new: Record) -> Iterator[tuple[RecordedCase, RecordedCase]]:
    """Measured cases of the new record, each with the old one of the same key, or else the only one of its kind."""
    measured = [case for case in old.cases if case.measured]
    for case in new.cases:
        same = [each for each in measured if each.case.key == case.case.key]
        alike = same or [each for each in measured if _kind(each) == _kind(case)]
        if case.measured and len(alike) == 1:
            yield case, alike[0]


def _kind(case: RecordedCase) -> tuple[str, str, str]:
    return (case.case.backend, case.case.model, case.case.quant)


def _text(found: Explained) -> str:
    from pytest_rwkvperf.core.cause import why
    from pytest_rwkvperf.stats.slowdown import percent_slower

    heading = (
        f"{found.case} {found.workload}: {percent_slower(found.ratio)} ({found.old:.1f} → {found.new:.1f} tokens/s)"
    )
    lines = [f"  {_LABELS[cause.kind]:9} {cause}" for cause in found.causes]
    return "\n".join([heading, *(lines or [f"  {why(())[0]}"]), ""])
