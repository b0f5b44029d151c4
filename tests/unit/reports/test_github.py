"""On GitHub Actions: the step's summary, and annotations in which no text can end or forge a command."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from markdown_it import MarkdownIt

from pytest_rwkvperf.core.cause import Cause
from pytest_rwkvperf.reports import github
from pytest_rwkvperf.reports.summary import REPORT
from pytest_rwkvperf.store.record import RecordedInvariant, SkippedEngine
from tests.unit.building import make_record, make_run, passed, recorded, report_record

if TYPE_CHECKING:
    from pathlib import Path

MEASURED = make_record(make_run(pp16=[10**7] * 3), make_run(pp16=[11 * 10**6] * 3))
SLOWER = replace(passed(MEASURED)[0], verdict="REGRESSION", fails=True, reason="100 % slower,\r\nreally: 50%")
FAILED = report_record(recorded(MEASURED, SLOWER), skipped=(SkippedEngine("rwkv", "not installed: pip install x|y"),))
LINE = re.compile(r"::error title=([^:,\r\n]*)::([^\r\n]*)")


def test_failure_is_one_escaped_line() -> None:
    (line,) = github.errors_of(FAILED)
    match = LINE.fullmatch(line)
    assert match
    assert match[1] == "REGRESSION llama-cpp-q8_0-cpu pp16"
    assert match[2] == "100 %25 slower,%0Areally%3A 50%25 (100.0%25 faster than the baseline, ratio 2.000)".replace(
        "%3A", ":"
    )


@pytest.mark.parametrize(
    "evil", ["a\n::set-env name=X::y", "\r\n::error::forged", "t,file=x:1", "\x1b[2J%0A", "\u2028::x"]
)
def test_no_text_starts_another_command(evil: str) -> None:
    line = github.command("error", evil, evil)
    assert LINE.fullmatch(line)
    assert len(line.splitlines()) == 1


def test_failures_beyond_githubs_limit_are_counted() -> None:
    many = report_record(recorded(MEASURED, *[SLOWER] * 14))
    lines = [*github.errors_of(many)]
    assert len(lines) == github.ANNOTATIONS
    assert lines[-1].endswith("and 5 more; the job's summary has them all")
    assert len([*github.errors_of(report_record(recorded(MEASURED, *[SLOWER] * 10)))]) == 10


def test_summary_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "summary"
    path.write_text("before\n", encoding="utf-8")
    assert github.add_summary(FAILED, {"GITHUB_STEP_SUMMARY": str(path)}) == ""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("before\n### RWKV-7 throughput: 1 REGRESSION\n")
    rendered = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert "<td>❌ REGRESSION</td>" in rendered
    assert "rwkv was skipped: not installed: pip install x|y" in rendered


def test_summary_beyond_githubs_limit_is_cut_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary"
    monkeypatch.setattr(github, "SUMMARY_BYTES", 500)
    assert github.add_summary(FAILED, {"GITHUB_STEP_SUMMARY": str(path)}) == ""
    assert path.stat().st_size <= 500
    assert path.read_text(encoding="utf-8").endswith("does not fit into GitHub's summary; see the report files.\n")


def test_unwritable_summary_gives_a_sentence(tmp_path: Path) -> None:
    assert "no summary" in github.add_summary(FAILED, {"GITHUB_STEP_SUMMARY": str(tmp_path)})
    assert github.add_summary(FAILED, {}) == ""


def test_run_without_measurements_has_a_summary() -> None:
    text = REPORT.render(report_record(skipped=(SkippedEngine("rwkv", "not installed"),)), "en")[""]
    assert text.startswith("### RWKV-7 throughput: nothing was measured\n")
    assert "- rwkv was skipped: not installed" in text


def test_a_regressions_causes_and_a_broken_invariant_are_told() -> None:
    cause = Cause("count", "ADD", "50", "75", 0.5, witness="graph")
    broken = RecordedInvariant(
        "depth", "a claim", "tg4@d256", "tg4", "time", "BROKEN", "tg4@d256 takes longer", fails=True, tolerance=0.05
    )
    case = replace(recorded(MEASURED, replace(SLOWER, causes=(cause,))), invariants=(broken,))
    first, second = github.errors_of(report_record(case))
    assert first.endswith("; why: ADD 50 → 75 +50.0%25 (graph)")
    assert second == "::error title=BROKEN llama-cpp-q8_0-cpu depth::a claim: tg4@d256 takes longer"
    text = REPORT.render(report_record(case), "en")[""]
    assert "why: ADD 50 → 75" in text
    assert "tg4@d256 takes longer" in text
