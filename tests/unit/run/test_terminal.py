"""The section at the end of a run: its tables, and one sentence for what to do next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_rwkvperf.machine.nvml import GpuFacts, GpuReading
from pytest_rwkvperf.machine.watching import GpuConditions
from pytest_rwkvperf.run import terminal
from pytest_rwkvperf.run.result import RunResult, Saved
from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem
from tests.unit.building import CASE, make_record, make_run, recorded, report_record, throttled, with_verdict

if TYPE_CHECKING:
    from pytest_rwkvperf.run.settings import Settings
    from pytest_rwkvperf.stats.verdicts import Verdict

MEASURED = make_record(make_run(pp16=(40_000_000,)))


def of_items(*items: RecordedItem) -> Record:
    return report_record(RecordedCase(CASE, None, None, items))


def steps(
    record: Record,
    saved: Saved | None = None,
    *,
    save_failed: bool = False,
    **changed: Any,  # noqa: ANN401 - settings
) -> list[str]:
    defaults = {"ab": "", "aa": False, "save": "no", "save_crowded": False}
    settings = cast("Settings", SimpleNamespace(**{**defaults, **changed}))
    return terminal.next_steps(record.disambiguated(), RunResult(record, saved, save_failed=save_failed), settings)


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        (("PASS", "IMPROVEMENT"), "Nothing got slower than the tolerance allows."),
        (
            ("PASS", "INCONCLUSIVE"),
            (
                "Sessions on this machine differ by more than the tolerance: use --rwkv-ab, or a wider "
                "--rwkv-tolerance; a larger budget does not help."
            ),
        ),
        (("INCONCLUSIVE", "NO-BASELINE"), "No baseline to compare with: reason."),
        (("NO-BASELINE", "INVALID"), "A figure is invalid; its test says why."),
        (
            ("INVALID", "PASS", "REGRESSION"),
            "Something got slower: rerun to confirm, then bisect; --rwkv-save-baseline=replace accepts it.",
        ),
    ],
)
def test_the_sentence_is_about_the_gravest_verdict(verdicts: tuple[Verdict, ...], sentence: str) -> None:
    assert steps(of_items(*map(with_verdict, verdicts))) == [sentence]


def unbounded(verdict: Verdict = "INCONCLUSIVE", detectable: float | None = None) -> RecordedItem:
    item = with_verdict(verdict)
    assert item.comparison is not None
    return replace(item, comparison=replace(item.comparison, low=0.0, high=None, detectable=detectable))


def test_no_budget_is_advised_on_a_machine_that_allows_no_verdict() -> None:
    (sentence,) = steps(of_items(with_verdict("PASS"), unbounded()))
    assert sentence.startswith("The machine allowed no verdict")
    assert "--rwkv-budget" not in sentence


@pytest.mark.parametrize(
    ("voided", "sentence"),
    [
        ("watched", "A debugger or a coverage tool is active, so no verdict counts: run without it"),
        ("gpu", "A GPU was throttled or busy, which voided verdicts: run again when it is idle and cool."),
    ],
)
def test_voided_verdicts_have_their_own_sentence(voided: str, sentence: str) -> None:
    (step,) = steps(of_items(with_verdict("INCONCLUSIVE", voided=voided), with_verdict("PASS")))
    assert step.startswith(sentence)


def test_saving_is_not_advised_after_a_save_that_failed() -> None:
    record = of_items(with_verdict("NO-BASELINE"))
    assert steps(record, save="append", save_failed=True) == []
    assert steps(record) == ["No baseline to compare with: reason."]


def test_reason_for_no_baseline_does_not_depend_on_the_order() -> None:
    items = [with_verdict("NO-BASELINE", reason=reason) for reason in ("b", "a", "c")]
    assert steps(of_items(*items)) == steps(of_items(*items[::-1])) == ["No baseline to compare with: a."]


def test_coarse_comparison_is_pointed_out() -> None:
    record = of_items(with_verdict("IMPROVEMENT"), unbounded("REGRESSION", detectable=0.11))
    assert steps(record)[-1].startswith(
        "1 of 2 detects only slowdowns of more than 2 times the tolerance (11% at best)"
    )


def test_saving_run_says_what_it_saved_and_where() -> None:
    saved = Saved(Path("baselines/here.json"), 3)
    record = of_items(with_verdict("PASS"))
    assert steps(record, saved=saved, save="append") == [f"Saved 3 workloads to {saved.path}; commit it."]


def test_a_date_ahead_of_the_clock_is_said() -> None:
    record = of_items(with_verdict("PASS"))
    saved = Saved(Path("here.json"), 3, ahead="2031-01-10T00:00:00Z")
    assert "dated up to 2031-01-10T00:00:00Z, later than" in steps(record, saved, save="append")[1]


def test_doubtful_case_is_named_as_not_saved() -> None:
    record = report_record(recorded(throttled(MEASURED), with_verdict("NO-BASELINE")))
    nothing, sentence = steps(record, saved=Saved(None, 0), save="append")
    assert nothing == "Nothing was saved."
    assert sentence.startswith("Not saved: llama-cpp-q8_0-cpu: NVIDIA H200 was throttled")


CROWDED = replace(MEASURED, conditions=replace(MEASURED.conditions, foreign=0.45))


def test_a_crowded_session_is_named_as_not_saved_with_what_to_do() -> None:
    record = report_record(recorded(CROWDED, with_verdict("NO-BASELINE")))
    nothing, sentence = steps(record, Saved(None, 0), save="append")
    assert nothing == "Nothing was saved."
    assert sentence.startswith("Not saved: llama-cpp-q8_0-cpu: other processes took 45% of the processor meanwhile")
    assert "end those processes and save again (or save append,crowded" in sentence


def test_a_crowded_session_that_was_asked_for_is_not_advised_to_be_committed() -> None:
    record = report_record(recorded(CROWDED, with_verdict("NO-BASELINE")))
    saving, why = steps(record, Saved(Path("here.json"), 1), save="append", save_crowded=True)
    assert saving == "Saved 1 workload to here.json."
    assert why.startswith("Other processes took 45% of the processor meanwhile.")


def test_an_a_a_run_says_that_a_crowded_machine_left_no_noise() -> None:
    record = report_record(recorded(CROWDED, with_verdict("PASS")))
    told = [step for step in steps(record, ab="python", aa=True) if "was not kept" in step]
    (sentence,) = told
    assert sentence.endswith("of the processor meanwhile. Run --rwkv-aa again when they have ended.")


def test_regressions_are_named_as_not_saved_unless_replacing() -> None:
    record, saved = of_items(with_verdict("REGRESSION"), with_verdict("PASS")), Saved(Path("here.json"), 1)
    accepted = ["Saved 1 workload to here.json; commit it."]
    refused = "llama-cpp-q8_0-cpu tg128@d4096; --rwkv-save-baseline=replace accepts them."
    assert steps(record, saved=saved, save="append") == [
        *accepted, f"Regressions are not saved: {refused}",
    ]  # fmt: skip
    assert steps(record, saved=saved, save="replace") == accepted


@pytest.mark.parametrize(
    ("verdicts", "status", "told"),
    [
        (("REGRESSION",), 1, ["Nothing was saved.", "Regressions are not saved: llama-cpp-q8_0-cpu tg128@d4096; "]),
        (("INVALID",), 1, ["Nothing was saved: a figure is invalid; its test says why."]),
        ((), 2, ["Nothing was saved: the run was interrupted before a workload that can be saved had its verdict."]),
        ((), 0, ["Nothing was saved."]),
    ],
)
def test_a_run_that_was_to_save_says_that_nothing_was(
    verdicts: tuple[Verdict, ...], status: int, told: list[str]
) -> None:
    record = replace(of_items(*map(with_verdict, verdicts)), exit_status=status)
    found = steps(record, save="append")
    assert [sentence[: len(start)] for sentence, start in zip(found, told, strict=True)] == told
    lines = written(record=record, save="append")
    assert told[0] in lines


def test_sentences_name_the_threads_if_they_tell_cases_apart() -> None:
    cases = [RecordedCase(replace(CASE, threads=count), None, None, (with_verdict("PASS"),)) for count in (1, 2)]
    sentence = steps(report_record(*cases), ab="python")[-1]
    assert sentence.endswith("llama-cpp-q8_0-cpu-t1 tg128@d4096 9.0%, llama-cpp-q8_0-cpu-t2 tg128@d4096 9.0%.")


# Through pytest's reporter


class Reporter:
    """As much of pytest's reporter as the section uses."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        writer = SimpleNamespace(fullwidth=120, hasmarkup=False)
        self.config = SimpleNamespace(get_terminal_writer=lambda: writer)

    def write_sep(self, _sign: str, title: str) -> None:
        self.lines.append(title)

    def write(self, text: str) -> None:
        self.lines += text.splitlines()

    write_line = write


def written(save: str = "no", **result: Any) -> list[str]:  # noqa: ANN401 - the result's fields
    reporter, settings = Reporter(), SimpleNamespace(ab="", aa=False, save=save, save_crowded=False)
    terminal.write(cast("pytest.TerminalReporter", reporter), RunResult(**result), cast("Settings", settings))
    return [line.rstrip() for line in reporter.lines]


def test_section_is_title_troubles_table_and_sentences() -> None:
    gpu = GpuConditions(GpuFacts("NVIDIA H200", "", ""), GpuReading(0.0), (), unrecorded="CUPTI refused")
    record = report_record(recorded(replace(MEASURED, gpu=gpu), with_verdict("PASS")))
    lines = written(
        record=record, troubles=("not saved: disk full",), reports=(Path("run.json"),), history=("Stored.",)
    )
    assert lines[0] == "RWKV-7 throughput"
    assert [line.split()[0] for line in lines[1:9] if line] == ["backend", "llama-cpp"] * 3
    assert lines[-5:] == [
        "llama-cpp-q8_0-cpu: no device time: CUPTI refused.",
        "not saved: disk full",
        "Nothing got slower than the tolerance allows.",
        "Wrote run.json",
        "Stored.",
    ]


def test_what_was_measured_alone_is_named_as_not_judged() -> None:
    lines = written(record=of_items(replace(with_verdict("PASS"), verdict=None)))
    assert lines[2].endswith("not judged")
    assert lines[3:] == ["Measured, not judged (no test called check() for it): llama-cpp-q8_0-cpu tg128@d4096."]


def test_run_without_results_has_no_section() -> None:
    assert written() == written(record=of_items(replace(with_verdict("INVALID"), verdict=None))) == []
    assert written(troubles=("trouble",)) == ["RWKV-7 throughput", "trouble"]
