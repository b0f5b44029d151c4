"""`rwkvperf certify` without an engine: its files, turns, Ctrl-C, and how it goes on."""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.certify import trials
from pytest_rwkvperf.certify.trials import Trial, TrialItem
from pytest_rwkvperf.cli import certify
from pytest_rwkvperf.cli.main import main
from pytest_rwkvperf.core.software import Software
from tests.unit.building import make_record, make_run, recorded, report_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_rwkvperf.store.record import Record


class Scripted:
    """Trials that take no time: a slowdown beyond the tolerance is found. Interrupted before trial `interrupted`."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.options: tuple[str, ...] = ()
        self.interrupted = 0
        self.version = "3.11"

    def save_baseline(self, *options: str) -> Record:
        self.options = options
        measured = replace(make_record(make_run(pp512=(10**9, 10**9))), software=Software(self.version, "linux"))
        return report_record(recorded(measured))

    def take(self, slowdown: float, *options: str) -> Trial:
        assert options == self.options
        if len(self.taken) + 1 == self.interrupted:
            raise KeyboardInterrupt
        self.taken.append(slowdown)
        return Trial(slowdown, 60.0, (TrialItem("f16 pp512", "REGRESSION" if slowdown > 0.05 else "PASS", "ab", 1.0),))


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    monkeypatch.chdir(tmp_path)
    scripted = Scripted()

    @contextmanager
    def running(_location: str) -> Iterator[Scripted]:
        yield scripted

    monkeypatch.setattr(trials, "trials", running)
    return scripted


def stop_after(live: Scripted, count: int) -> int:
    """Interrupt before the trial after so many; the exit status."""
    live.interrupted = len(live.taken) + count + 1
    return main(["certify", "--slowdowns", "0,10%", "--", "--rwkv-quant=f16"])


def test_every_trial_is_kept_and_the_same_command_goes_on(
    live: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stop_after(live, 3) == 130
    assert "Interrupted. The stored trials are kept" in capsys.readouterr().out
    assert live.taken == [0.0, 0.1, 0.0]
    assert stop_after(live, 2) == 130
    assert live.taken == [0.0, 0.1, 0.0, 0.1, 0.0]
    written = json.loads((tmp_path / "certificate" / "certificate.json").read_text(encoding="utf-8"))
    assert [trial["slowdown"] for trial in written["trials"]] == live.taken
    assert written["shown"][0]["runs_called"] == {
        "count": 0,
        "total": 3,
        "low": 0.0,
        "high": pytest.approx(0.7076, abs=1e-4),
    }
    text = (tmp_path / "certificate" / "certificate.md").read_text(encoding="utf-8")
    assert "False alarms with an unchanged engine: 0 of 3" in text
    assert "![certificate](certificate.svg)" in text
    assert (tmp_path / "certificate" / "certificate.svg").read_text(encoding="utf-8").startswith("<svg")


@pytest.fixture
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by ten seconds whenever it is asked."""
    times = itertools.count(0.0, 10.0)
    monkeypatch.setattr(certify, "time", SimpleNamespace(monotonic=lambda: next(times)))


@pytest.mark.usefixtures("_clock")
def test_the_time_ends_it(live: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", "--minutes", "2"]) == 0
    assert live.taken == [0.0, 0.02, 0.05, 0.1, 0.2]
    assert live.options == ("--rwkv-budget=60",)
    assert "1. unchanged: f16 pp512 PASS (60 s)" in capsys.readouterr().out


@pytest.mark.usefixtures("_clock")
def test_a_budget_of_ones_own_takes_the_place_of_the_default(live: Scripted) -> None:
    assert main(["certify", "--minutes", "2", "--", "--rwkv-budget=20"]) == 0
    assert live.options == ("--rwkv-budget=20",)


def test_no_minutes_shows_what_is_recorded(live: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", "--minutes", "0"]) == 2
    stop_after(live, 2)
    capsys.readouterr()
    assert main(["certify", "--minutes", "0"]) == 0
    assert "| 10% | 1 |" in capsys.readouterr().out
    assert len(live.taken) == 2


def test_trials_of_another_engine_are_not_added(live: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    stop_after(live, 1)
    live.version = "3.12"
    assert stop_after(live, 1) == 1
    assert "was made with another software; name another folder with --out" in capsys.readouterr().err
    assert len(live.taken) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--minutes", "soon"], "--minutes='soon' is not a number"),
        (["--slowdowns", "fast"], "--slowdowns='fast' is not a share"),
        (["--backend", "rwkv,llama-cpp"], "must be one engine"),
        (["--backend", "vllm"], "'vllm' is unknown"),
    ],
)
def test_mistakes_are_told(live: Scripted, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert main(["certify", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not live.taken
