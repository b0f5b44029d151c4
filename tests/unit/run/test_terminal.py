"""The summary: every verdict and figure readable at any width, and one sentence for what to do next."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_rwkvperf.core.cases import Case, Item, Workload
from pytest_rwkvperf.machine.cupti import DeviceTime
from pytest_rwkvperf.machine.nvml import GpuFacts
from pytest_rwkvperf.machine.watching import GpuConditions, GpuReading
from pytest_rwkvperf.measure.record import Energy
from pytest_rwkvperf.run import terminal
from pytest_rwkvperf.run.result import RunResult, Saved
from pytest_rwkvperf.stats.estimates import Rate
from pytest_rwkvperf.stats.verdicts import Comparison, Verdict
from pytest_rwkvperf.verdict.judged import Judgement
from tests.unit.building import make_record, make_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.run.session import Session

VERDICTS: tuple[Verdict, ...] = ("PASS", "REGRESSION", "IMPROVEMENT", "INCONCLUSIVE", "NO-BASELINE", "INVALID")
ESCAPE = "\x1b"
ITEM = Item(Case("llama-cpp", "synthetic:nano", "q5_k_m", "cpu", 2, 512), Workload("generation", 128, 4096))


def judged(verdict: Verdict, item: Item = ITEM, reason: str = "reason") -> Judgement:
    """A judgement with the figures that its verdict leaves."""
    new = None if verdict == "INVALID" else Rate(1234.567, 1200, 1260, 5, 50)
    if verdict in ("INVALID", "NO-BASELINE"):
        return Judgement(item, verdict, reason, 0.05, new)
    old, comparison = Rate(98.765, 98, 99, 5, 50), Comparison(0.512, 0.456, 0.571, 0.05, 0.01, 0.09)
    return Judgement(item, verdict, reason, 0.05, new, old, comparison)


ALL = [judged(verdict) for verdict in VERDICTS]


def plain(judgements: list[Judgement], width: int = 120) -> list[str]:
    return [line.rstrip() for line in terminal.render(judgements, width, colour=False).splitlines()]


# The table


@pytest.mark.parametrize("width", [1, 40, 60, 80, 100, 120, 200])
def test_no_width_cuts_a_verdict_a_name_or_a_figure(width: int) -> None:
    header, *rows = plain(ALL, width)
    assert header.startswith("backend")
    assert [row.split()[-1] for row in rows] == list(VERDICTS)
    assert all(row.split()[:4] == ["llama-cpp", "q5_k_m", "cpu", "tg128@d4096"] for row in rows)
    assert rows[1].split()[4:8] == ["1235", "2.4%", "98.77", "0.512"]
    assert "…" not in "".join(rows)


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_a_table_fits_a_terminal_of_the_usual_width(width: int) -> None:
    assert max(map(len, plain(ALL, width))) <= width


def test_bounds_are_shown_where_there_is_room() -> None:
    assert "bounds" in plain(ALL, 120)[0]
    assert "0.46-0.57" in plain(ALL, 120)[2]
    assert "bounds" not in plain(ALL, 80)[0]


def test_what_a_comparison_finds_is_shown_where_there_is_room() -> None:
    assert "finds" in plain(ALL, 120)[0]
    assert plain(ALL, 120)[2].split()[9] == "9%"
    assert "finds" not in plain(ALL, 80)[0]


def test_a_comparison_too_blunt_for_its_tolerance_says_what_would_see_more() -> None:
    comparison = ALL[1].comparison
    assert comparison is not None
    blunt = replace(ALL[1], comparison=replace(comparison, detectable=0.11))
    assert steps(ALL[2], blunt)[-1].startswith("1 of 2 find only slowdowns of more than 2 times the tolerance")


def test_an_items_parity_is_shown_where_there_is_room() -> None:
    assert "1.2e-05" in plain([replace(ALL[0], parity=1.23e-5)], 120)[1]


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.126, "0.13"), (9.876, "9.88"), (98.765, "98.77"), (123.456, "123.5"), (1234.5, "1234"), (123456.7, "123457")],
)
def test_figures_have_about_four_digits(rate: float, text: str) -> None:
    judgement = Judgement(ITEM, "NO-BASELINE", "", 0.05, Rate(rate, rate, rate, 5, 50))
    assert plain([judgement])[1].split()[4:6] == [text, "0.0%"]


def test_without_colour_there_are_no_escape_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TTY_COMPATIBLE", "1"), ("TERM", "xterm-256color"), ("COLUMNS", "20")):
        monkeypatch.setenv(name, value)
    text = terminal.render(ALL, 120, colour=False)
    assert ESCAPE not in text
    assert "INCONCLUSIVE" in text


def test_with_colour_verdicts_are_coloured_and_the_text_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = terminal.render(ALL, 120, colour=True)
    assert re.search(rf"{ESCAPE}\[[0-9;]*31m *REGRESSION", coloured)
    assert re.search(rf"{ESCAPE}\[[0-9;]*32m *PASS", coloured)
    assert re.sub(rf"{ESCAPE}\[[0-9;]*m", "", coloured) == terminal.render(ALL, 120, colour=False)


def test_names_are_shown_as_they_are_and_never_as_markup() -> None:
    case = Case("my[red]engine[/red]", "m", "[bold]q8", ":smile:", 1, 1)
    row = plain([judged("PASS", Item(case, ITEM.workload))])[1]
    assert row.split()[:3] == ["my[red]engine[/red]", "[bold]q8", ":smile:"]


# What to do next


def session_of(records: Sequence[CaseRecord], ab: str = "", save: str = "no") -> Session:
    """As much of a session as the summary uses."""
    settings, folder = SimpleNamespace(ab=ab, save=save), SimpleNamespace(new_records=lambda: list(records))
    return cast("Session", SimpleNamespace(settings=settings, folder=folder))


def result_of(judgements: Sequence[Judgement], saved: Saved | None = None, trouble: str = "") -> RunResult:
    by_item = cast("dict[Item, Judgement]", dict(enumerate(judgements)))  # all of them share one item
    return RunResult(by_item, saved, troubles=tuple(filter(None, [trouble])))


def steps(
    *judgements: Judgement,
    saved: Saved | None = None,
    trouble: str = "",
    ab: str = "",
    save: str = "no",
    records: tuple[CaseRecord, ...] = (),
) -> list[str]:
    return terminal.next_steps(session_of(records, ab, save), result_of(judgements, saved, trouble))


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        (("PASS", "IMPROVEMENT"), "Nothing got slower than the tolerance allows."),
        (("PASS", "INCONCLUSIVE"), "Noise hides the answer for some: raise --rwkv-budget, or --rwkv-tolerance."),
        (("INCONCLUSIVE", "NO-BASELINE"), "No baseline to compare with: reason."),
        (("NO-BASELINE", "INVALID"), "A figure is invalid; its test says why."),
        (
            ("INVALID", "PASS", "REGRESSION"),
            "Something got slower: rerun to confirm, then bisect; --rwkv-save-baseline=replace accepts it.",
        ),
    ],
)
def test_the_gravest_verdict_has_the_sentence(verdicts: tuple[Verdict, ...], sentence: str) -> None:
    assert steps(*map(judged, verdicts)) == [sentence]


def voided() -> Judgement:
    comparison = ALL[1].comparison
    assert comparison is not None
    return replace(judged("INCONCLUSIVE"), comparison=replace(comparison, low=0.0, high=None, detectable=None))


def test_where_the_machine_allowed_no_verdict_no_budget_is_asked_for() -> None:
    assert steps(judged("PASS"), voided()) == [
        (
            "The machine allowed no verdict, being crowded or its processors elsewhere, now or when the baseline was "
            "stored: run again when it is idle, or take --rwkv-ab; --rwkv-strict=inconclusive says more."
        )
    ]
    assert "raise --rwkv-budget" in steps(voided(), judged("INCONCLUSIVE"))[0]


def test_of_a_run_that_somebody_watched_it_is_said_how_verdicts_come_to_count() -> None:
    watched = replace(judged("INCONCLUSIVE"), voided="watched")
    assert steps(watched, judged("PASS")) == [
        "Somebody watches this process, so no verdict counts: run without that (pytest-cov: --no-cov)."
    ]


def test_of_a_gpu_that_was_throttled_no_budget_is_asked_for() -> None:
    assert steps(replace(judged("INCONCLUSIVE"), voided="gpu"), judged("PASS")) == [
        "A GPU was throttled or busy, which took verdicts away: run again when it is idle and cool."
    ]


def test_of_a_save_that_failed_it_is_not_said_that_saving_would_help() -> None:
    trouble = "not saved: the disk is full"
    assert steps(judged("NO-BASELINE"), trouble=trouble, save="append") == [trouble]
    assert steps(judged("NO-BASELINE"), trouble="no report") == ["no report", "No baseline to compare with: reason."]


def test_of_several_reasons_for_no_baseline_the_same_one_is_said_every_time() -> None:
    judgements = [judged("NO-BASELINE", reason=reason) for reason in ("b", "a", "c")]
    assert steps(*judgements) == steps(*judgements[::-1]) == ["No baseline to compare with: a."]


def test_a_saving_run_says_what_it_saved_and_where() -> None:
    saved = Saved(Path("baselines/here.json"), 3)
    assert steps(judged("PASS"), saved=saved) == [f"Saved 3 workloads to {saved.path}; commit it."]


def test_what_no_verdict_may_rest_on_is_said_not_to_be_saved() -> None:
    saved = Saved(None, 0, doubted=("llama-cpp-q8_0-cuda:0: NVIDIA H200 was throttled",))
    assert steps(judged("NO-BASELINE"), saved=saved) == ["Not saved: llama-cpp-q8_0-cuda:0: NVIDIA H200 was throttled."]


def test_a_session_that_no_verdict_will_rest_on_is_pointed_out_when_it_is_saved() -> None:
    saved = Saved(Path("here.json"), 1)
    calm = make_record(make_run(pp16=(40_000_000,)))
    crowded = replace(calm, conditions=replace(calm.conditions, foreign=0.45))
    assert steps(judged("NO-BASELINE"), saved=saved, records=(calm, crowded)) == [
        "Saved 1 workloads to here.json; commit it.",
        (
            "Other processes took 45% of the processor meanwhile, and no verdict rests on such a session: save again "
            "when the machine is idle."
        ),
    ]
    assert len(steps(judged("NO-BASELINE"), saved=saved, records=(calm,))) == 1


def test_a_saving_run_says_what_it_refused() -> None:
    saved = Saved(Path("here.json"), 1, (judged("REGRESSION"),))
    assert steps(judged("REGRESSION"), judged("PASS"), saved=saved) == [
        "Saved 1 workloads to here.json; commit it.",
        "Not saved, being regressions: llama-cpp-q5_k_m-cpu tg128@d4096; --rwkv-save-baseline=replace accepts them.",
    ]


def test_sentences_name_the_threads_where_they_tell_cases_apart() -> None:
    one, other = (judged("REGRESSION", Item(replace(ITEM.case, threads=count), ITEM.workload)) for count in (1, 2))
    refused = steps(one, other, saved=Saved(Path("here.json"), 1, (other,)))[-1]
    assert refused.startswith("Not saved, being regressions: llama-cpp-q5_k_m-cpu-t2 tg128@d4096;")
    found = steps(one, other, ab="python")[-1]
    assert found.endswith("llama-cpp-q5_k_m-cpu-t1 tg128@d4096 9.0%, llama-cpp-q5_k_m-cpu-t2 tg128@d4096 9.0%.")


def test_trouble_comes_first() -> None:
    assert steps(judged("PASS"), trouble="not saved: disk full")[0] == "not saved: disk full"


# Through pytest's reporter


class Reporter:
    """As much of pytest's reporter as the summary uses."""

    def __init__(self, width: int) -> None:
        self.lines: list[str] = []
        writer = SimpleNamespace(fullwidth=width, hasmarkup=False)
        self.config = SimpleNamespace(get_terminal_writer=lambda: writer)

    def write_sep(self, _sign: str, title: str) -> None:
        self.lines.append(title)

    def write(self, text: str) -> None:
        self.lines += text.splitlines()

    write_line = write


def written(*judgements: Judgement, trouble: str = "", records: tuple[CaseRecord, ...] = ()) -> list[str]:
    reporter = Reporter(120)
    reporter_ = cast("pytest.TerminalReporter", reporter)
    terminal.write(reporter_, session_of(records), result_of(judgements, trouble=trouble))
    return [line.rstrip() for text in reporter.lines for line in text.split("\n")]


def test_the_section_is_title_table_and_sentence() -> None:
    assert written(judged("PASS")) == [
        "RWKV-7 throughput",
        *plain([judged("PASS")]),
        "Nothing got slower than the tolerance allows.",
    ]


def test_a_cases_own_figures_follow_with_their_units() -> None:
    record = make_record(make_run(load=1_500_000_000, peak=300 << 20, pp16=(40_000_000,), tg4=(8_000_000,)))
    lines = written(judged("PASS"), records=(record,))
    header, figures = next((one, two) for one, two in itertools.pairwise(lines) if "first token" in one)
    assert header.endswith("file")
    for figure in ("1.50 s", "40.0 ms", "2.00 ms", "300 MiB"):
        assert figure in figures


def test_a_gpus_figures_are_told_with_the_device_time_beside_the_drivers_account() -> None:
    reading = GpuReading(1e9 + 0.001, sm_mhz=1980, utilisation=95, celsius=40, own_bytes=6 << 30)
    gpu = GpuConditions(GpuFacts("NVIDIA H200", "", ""), GpuReading(0.0), (reading,), unrecorded="CUPTI refused")
    took = DeviceTime(tokens=16, wall_nanoseconds=1, busy_nanoseconds=2_000_000, kernels=9, copies=1, launches=1)
    run = replace(make_run(pp16=(40_000_000,), tg4=(8_000_000,)), device_time={"pp16": took})
    lines = written(judged("PASS"), records=(replace(make_record(run), gpu=gpu),))
    header, figures = next((one, two) for one, two in itertools.pairwise(lines) if "GPU memory" in one)
    assert " ".join(header.split()).endswith("pp busy tg busy pp device tg device SM clock hottest")
    assert figures.split()[-7:] == ["95%", "95%", "5.0%", "1980-1980", "MHz", "40", "°C"], "no tg device: not recorded"
    assert "llama-cpp-q8_0-cpu: no device time: CUPTI refused." in lines


def test_a_gpus_figures_in_a_tools_own_protocol_are_told_from_the_others() -> None:
    gpu = GpuConditions(GpuFacts("NVIDIA H200", "", ""), GpuReading(0.0), (GpuReading(1e9 + 0.001, own_bytes=1),))
    record = replace(make_record(make_run(pp16=(40_000_000,))), gpu=gpu)
    native = replace(record, case=replace(record.case, protocol="native"))
    lines = written(judged("PASS"), records=(record, native))
    at = next(index for index, line in enumerate(lines) if "GPU memory" in line)
    assert ["(native)" in line for line in lines[at + 1 : at + 3]] == [False, True]


def test_of_several_depths_a_case_is_shown_by_the_least_which_alone_has_energy_and_device_time() -> None:
    gpu = GpuConditions(GpuFacts("NVIDIA H200", "", ""), GpuReading(0.0), (GpuReading(1e9 + 0.001, own_bytes=1),))
    took = DeviceTime(tokens=16, wall_nanoseconds=1, busy_nanoseconds=2_000_000, kernels=9, copies=1, launches=1)
    times: dict[str, Any] = {
        "pp16": (40_000_000,),
        "pp16@d64": (50_000_000,),
        "tg4@d64": (8_000_000,),
        "tg4": (9_000_000,),
    }
    run = replace(make_run(**times), device_time={"pp16": took, "tg4": took}, energy={"pp16": Energy(100, 250.0, 1.0)})
    lines = written(judged("PASS"), records=(replace(make_record(run), gpu=gpu),))
    text = "\n".join(lines)
    assert "40.0 ms" in text
    header, figures = next((one, two) for one, two in itertools.pairwise(lines) if "GPU memory" in one)
    assert figures.split()[-3:] == ["2.5", "5.0%", "5.6%"], header


def test_without_results_there_is_no_section() -> None:
    assert written() == []
    assert written(trouble="trouble")[:2] == ["RWKV-7 throughput", "trouble"]
