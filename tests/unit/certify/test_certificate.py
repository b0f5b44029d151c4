"""What trials show: shares with their bounds, turns, times, and the words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.certify import plot
from pytest_rwkvperf.certify.certificate import FORMAT, Certificate, Share, Subject, paragraph, summaries, table
from pytest_rwkvperf.certify.trials import Trial, TrialItem
from pytest_rwkvperf.core.errors import CertificateError
from pytest_rwkvperf.machine.fingerprint import Fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.stats.verdicts import Verdict

MACHINE = Fingerprint("Linux", "x86_64", "Model of processor", "family 6", 2, 1, ())
SUBJECT = Subject("llama-cpp", {"llama-cpp-python": "0.3.36"}, "a" * 64, ("--rwkv-budget=60",), MACHINE, "0.1")


def trial(slowdown: float, *verdicts: Verdict, seconds: float = 60.0) -> Trial:
    return Trial(
        slowdown, seconds, tuple(TrialItem(f"f16 pp{i}", verdict, "ab", 0.9) for i, verdict in enumerate(verdicts))
    )


def certificate(*trials: Trial) -> Certificate:
    empty = Certificate(SUBJECT, "2026-11-30T12:00:00Z", 0.05)
    for one in trials:
        empty = empty.with_trial(one)
    return empty


TRIALS = (
    trial(0.1, "REGRESSION", "INCONCLUSIVE", seconds=90),
    trial(0.0, "PASS", "PASS", seconds=50),
    trial(0.0, "PASS", "REGRESSION", seconds=70),
    trial(0.0, "IMPROVEMENT", "PASS", seconds=61),
)


def test_bounds_are_those_of_clopper_and_pearson() -> None:
    # By hand: without a success the upper bound solves (1 - p)^n = 2.5 %.
    none = Share.of(0, 10)
    assert none.low == 0.0
    assert none.high == pytest.approx(1 - 0.025**0.1)
    assert Share.of(10, 10).low == pytest.approx(0.025**0.1)
    assert Share.of(0, 0) == Share(0, 0, 0.0, 1.0)
    assert str(none) == "0 of 10 (0% to 31%)"


def test_runs_and_workloads_are_counted_by_slowdown() -> None:
    unchanged, slower = summaries(TRIALS)
    assert (unchanged.slowdown, slower.slowdown) == (0.0, 0.1)
    assert (unchanged.runs_called.count, unchanged.runs_called.total) == (1, 3)
    assert (unchanged.workloads_called.count, unchanged.workloads_called.total) == (1, 6)
    assert unchanged.passed.count == 5
    assert (unchanged.decided_runs, unchanged.median_seconds, unchanged.late_seconds) == (3, 61, 70)
    assert (slower.workloads_called.count, slower.passed.count) == (1, 0)
    assert (slower.decided_runs, slower.median_seconds) == (0, None)


def test_slowdowns_take_turns_and_what_was_interrupted_goes_on() -> None:
    slowdowns, done = (0.0, 0.02, 0.1), certificate()
    order = []
    for _ in range(6):
        order.append(done.next_slowdown(slowdowns))
        done = done.with_trial(trial(order[-1], "PASS"))
    assert order == [0.0, 0.02, 0.1] * 2
    assert certificate(trial(0.0, "PASS"), trial(0.1, "PASS")).next_slowdown(slowdowns) == 0.02


def test_the_paragraph_tells_machine_options_alarms_and_power() -> None:
    text = paragraph(certificate(*TRIALS))
    assert "Model of processor (1 cores) from 2026-11-30" in text
    assert "llama-cpp 0.3.36 (--rwkv-budget=60; tolerance 5%)" in text
    assert "False alarms with an unchanged engine: 1 of 3 (1% to 91%) runs." in text
    assert "Planted slowdown of 10%: found in 1 of 2 (1% to 99%) workloads, passed in 0." in text
    assert "decided in 3 of 4 runs" in text


def test_the_table_has_a_row_for_each_slowdown() -> None:
    lines = table(certificate(*TRIALS)).splitlines()
    assert lines[2].startswith("| nothing | 3 | 1 of 3")
    assert lines[3] == "| 10% | 1 | 1 of 1 (3% to 100%) | 1 of 2 (1% to 99%) | 0 of 2 (0% to 84%) | no run |"


def test_the_picture_shows_every_slowdown_and_trial() -> None:
    text = plot.svg(certificate(*TRIALS))
    assert text.startswith("<svg")
    assert "workloads called slower" in text
    assert text.count('aria-roledescription="point"') >= 2 + len(TRIALS)


def test_a_certificate_survives_its_file(tmp_path: Path) -> None:
    path, written = tmp_path / "certificate.json", certificate(*TRIALS)
    FORMAT.update(path, certificate(), lambda _: written)
    assert FORMAT.read(path) == written
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(CertificateError, match="name another folder with --out"):
        FORMAT.read(path)
