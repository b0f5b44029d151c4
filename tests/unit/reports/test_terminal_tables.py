"""The terminal's tables: every verdict, name and figure readable at any width."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.machine.cupti import DeviceTime
from pytest_rwkvperf.machine.nvml import GpuFacts, GpuReading
from pytest_rwkvperf.machine.watching import GpuConditions
from pytest_rwkvperf.measure.record import Energy
from pytest_rwkvperf.reports import figures, terminal_tables
from pytest_rwkvperf.stats.estimates import Rate
from tests.unit.building import CASE, VERDICTS, make_record, make_run, recorded, report_record, with_verdict

if TYPE_CHECKING:
    from pytest_rwkvperf.store.record import RecordedCase, RecordedItem

ESCAPE = "\x1b"
ALL = [with_verdict(verdict) for verdict in VERDICTS]
GPU = GpuConditions(GpuFacts("NVIDIA H200", "", ""), GpuReading(0.0), (GpuReading(1e9 + 0.001, own_bytes=1),))
BUSY = DeviceTime(tokens=16, wall_nanoseconds=1, busy_nanoseconds=2_000_000, kernels=9, copies=1, launches=1)


def table(*items: RecordedItem, width: int = 120, colour: bool = False) -> str:
    record = report_record(recorded(make_record(make_run(tg4=(8_000_000,))), *items))
    return terminal_tables.verdicts(record.items(), width, colour=colour)


def lines(*items: RecordedItem, width: int = 120) -> list[str]:
    return [line.rstrip() for line in table(*items, width=width).splitlines()]


@pytest.mark.parametrize("width", [1, 40, 60, 80, 100, 120, 200])
def test_no_width_truncates_a_verdict_a_name_or_a_figure(width: int) -> None:
    header, *rows = lines(*ALL, width=width)
    if "backend" in header:
        assert all(row.split()[:4] == ["llama-cpp", "q8_0", "cpu", "tg128@d4096"] for row in rows)
    else:
        names, *rows = rows
        assert names == "llama-cpp q8_0 cpu"
    assert [row.split()[-1] for row in rows] == list(VERDICTS)
    regression = rows[1].split()
    assert {"tg128@d4096", "1235", "0.512", "REGRESSION"} <= {*regression}
    assert width < 60 or {"2.4%", "98.77"} <= {*regression}
    assert "…" not in "".join(rows)


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_table_fits_the_usual_widths(width: int) -> None:
    assert max(map(len, lines(*ALL, width=width))) <= width


def test_narrow_terminal_has_no_bounds_detectable_slowdown_and_parity() -> None:
    header, _, regression, *_ = lines(*ALL)
    assert header.split()[-6:] == ["bounds", "detects", "≥", "parity", "by", "verdict"]
    assert regression.split()[-5:] == ["0.46-0.57", "9%", "1.0e-04", "stored", "REGRESSION"]
    assert lines(*ALL, width=80)[0].split()[-2:] == ["ratio", "verdict"]
    assert lines(*ALL, width=100)[0].split()[-3:] == ["detects", "≥", "verdict"], "the least important go first"


def test_in_60_columns_a_cases_names_stand_above_its_figures() -> None:
    assert lines(with_verdict("PASS"), with_verdict("REGRESSION"), width=60) == [
        "  workload     t/s ± 95 % baseline ratio verdict",
        "llama-cpp q8_0 cpu",
        "  tg128@d4096 1235   2.4%    98.77 0.512 PASS",
        "  tg128@d4096 1235   2.4%    98.77 0.512 REGRESSION",
    ]


def test_columns_that_are_empty_in_every_row_are_left_out() -> None:
    first_run, compared = lines(with_verdict("NO-BASELINE")), lines(*ALL)
    assert first_run[0].split() == [
        "backend",
        "quant",
        "device",
        "workload",
        "t/s",
        "±",
        "95",
        "%",
        "parity",
        "verdict",
    ]
    assert "baseline" in compared[0]


def sweep(*quants: str, backend: str = "llama-cpp") -> list[RecordedCase]:
    """A case of each quant, the first one at 100 tokens/s, each other one at half the speed of the one before."""
    cases = [replace(CASE, backend=backend, quant=quant) for quant in quants]
    times = [160_000_000 * 2**place for place in range(len(quants))]
    return [recorded(make_record(make_run(pp16=(time,)), case=case)) for case, time in zip(cases, times, strict=True)]


def rows_of(*cases: RecordedCase) -> list[dict[str, str]]:
    return figures.item_rows([*report_record(*cases).items()])


@pytest.mark.parametrize(
    ("cases", "reference", "factors"),
    [
        (sweep("q8_0", "f16", "q4_0"), "f16", ["2.00", "1.00", "0.50"]),
        (sweep("int8", "fp16", backend="web-rwkv"), "f16", ["2.00", "1.00"]),
        (sweep("q8_0", "q4_0"), "q8_0", ["1.00", "0.50"]),
        ([*sweep("f16", "q4_0"), *sweep("fp16", "int8", backend="rwkv")], "f16", ["1.00", "0.50"] * 2),
        ([*sweep("f16", "q4_0"), *sweep("nf4", "int8", backend="rwkv")], "first", ["1.00", "0.50"] * 2),
        ([*sweep("f16", "q4_0"), *sweep("fp16", backend="rwkv")], "f16", ["1.00", "0.50", ""]),
    ],
)
def test_a_sweep_of_quants_has_speeds_relative_to_f16(
    cases: list[RecordedCase], reference: str, factors: list[str]
) -> None:
    rows, title = rows_of(*cases), f"{figures.TIMES} {reference}"
    assert [row[title] for row in rows] == factors
    assert [*rows[0]].index(title) == [*rows[0]].index("± 95 %") + 1
    assert title in terminal_tables.verdicts(report_record(*cases).items(), 80, colour=False)


def test_a_sweep_of_settings_or_chunks_has_speeds_relative_to_the_first() -> None:
    times = zip((160, 320, 80), ({"chunk": 128}, {"chunk": 64}, {"settings": (("mmap", "off"),)}), strict=True)
    cases = [
        recorded(make_record(make_run(pp16=(time * 10**6,)), case=replace(CASE, **changed)))  # type: ignore[arg-type]
        for time, changed in times
    ]
    assert [row[f"{figures.TIMES} first"] for row in rows_of(*cases)] == ["1.00", "0.50", "2.00"]
    assert not any(figures.TIMES in name for row in rows_of(cases[0]) for name in row)


def test_one_quant_has_no_relative_speed_nor_has_a_wrong_answer() -> None:
    assert not any(figures.TIMES in name for row in rows_of(*sweep("f16")) for name in row)
    wrong, right = sweep("f16", "q4_0")
    wrong = replace(wrong, items=tuple(replace(item, verdict="INVALID") for item in wrong.items))
    assert not any(figures.TIMES in name for row in rows_of(wrong, right) for name in row)


def test_both_tables_have_the_same_order() -> None:
    record = report_record(*sweep("q8_0", "f16", "bf16"))
    for width in (60, 80, 120):
        tables = terminal_tables.verdicts(record.items(), width, colour=False), terminal_tables.cases(record, width)
        quants = [[word for word in text.split() if word in {"q8_0", "f16", "bf16"}] for text in tables]
        assert [one[-3:] for one in quants] == [["q8_0", "f16", "bf16"]] * 2


@pytest.mark.parametrize("width", [60, 80, 120])
def test_table_of_cases_fits_the_usual_widths(width: int) -> None:
    measured = make_record(make_run(load=12_500_000_000, peak=30_000 << 20, pp512=(1_400_000_000,), tg4=(400_000_000,)))
    for backend in ("llama-cpp", "web-rwkv"):
        case = replace(measured, case=replace(CASE, backend=backend, device="vulkan:0"))
        text = terminal_tables.cases(report_record(recorded(case)), width)
        assert max(map(len, text.splitlines())) <= width
        assert {"1400", "100.0", "30000"} <= {*text.split()}


def test_what_was_measured_alone_is_not_judged_and_what_failed_is_not_shown() -> None:
    alone, failed = replace(with_verdict("PASS"), verdict=None), replace(with_verdict("INVALID"), verdict=None)
    _, row = lines(alone, failed)
    assert row.endswith("not judged")


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.126, "0.13"), (9.876, "9.88"), (98.765, "98.77"), (123.456, "123.5"), (1234.5, "1234"), (123456.7, "123457")],
)
def test_rates_have_about_four_digits(rate: float, text: str) -> None:
    item = replace(with_verdict("NO-BASELINE"), rate=Rate(rate, rate, rate, 5, 50))
    assert lines(item)[1].split()[4:6] == [text, "0.0%"]


def test_without_colour_there_are_no_escape_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TTY_COMPATIBLE", "1"), ("TERM", "xterm-256color"), ("COLUMNS", "20")):
        monkeypatch.setenv(name, value)
    text = table(*ALL)
    assert ESCAPE not in text
    assert "INCONCLUSIVE" in text


def test_colour_marks_verdicts_and_changes_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = table(*ALL, colour=True)
    assert re.search(rf"{ESCAPE}\[[0-9;]*31m *REGRESSION", coloured)
    assert re.search(rf"{ESCAPE}\[[0-9;]*32m *PASS", coloured)
    assert re.sub(rf"{ESCAPE}\[[0-9;]*m", "", coloured) == table(*ALL)


def test_names_are_never_markup() -> None:
    case = replace(CASE, backend="my[red]engine[/red]", quant="[bold]q8", device=":smile:")
    record = report_record(recorded(make_record(make_run(pp16=(40_000_000,)), case=case)))
    for text in (terminal_tables.verdicts(record.items(), 120, colour=False), terminal_tables.cases(record, 120)):
        assert text.splitlines()[1].split()[:3] == ["my[red]engine[/red]", "[bold]q8", ":smile:"]


def test_figures_of_cases_have_units() -> None:
    measured = make_record(make_run(load=1_500_000_000, peak=300 << 20, pp16=(40_000_000,), tg4=(8_000_000,)))
    header, row = terminal_tables.cases(report_record(recorded(measured)), 120).splitlines()
    assert header.endswith("file")
    for figure in ("1.50 s", "40.00 ms", "2.00 ms", "300 MiB"):
        assert figure in row


def test_gpu_table_has_device_time_beside_the_drivers_utilisation() -> None:
    reading = GpuReading(1e9 + 0.001, sm_mhz=1980, utilisation=95, celsius=40, own_bytes=6 << 30)
    run = replace(make_run(pp16=(40_000_000,), tg4=(8_000_000,)), device_time={"pp16": BUSY})
    measured = replace(make_record(run), gpu=replace(GPU, readings=(reading,)))
    header, row = terminal_tables.gpus(report_record(recorded(measured)), 120).splitlines()
    assert " ".join(header.split()).endswith("pp busy tg busy pp device SM clock hottest")
    assert row.split()[-7:] == ["95%", "95%", "5.0%", "1980", "MHz", "40", "°C"], "no tg device: not recorded"


def test_gpu_table_names_the_protocol() -> None:
    measured = replace(make_record(make_run(pp16=(40_000_000,))), gpu=GPU)
    native = replace(measured, case=replace(measured.case, protocol="native"))
    _, *rows = terminal_tables.gpus(report_record(recorded(measured), recorded(native)), 120).splitlines()
    assert ["(native)" in row for row in rows] == [False, True]


def test_case_is_shown_by_its_least_depth_which_alone_has_energy_and_device_time() -> None:
    times: dict[str, Any] = {"pp16": 40_000_000, "pp16@d64": 50_000_000, "tg4@d64": 8_000_000, "tg4": 9_000_000}
    run = make_run(**{name: (time,) for name, time in times.items()})  # type: ignore[arg-type]  # its own are positional
    run = replace(run, device_time={"pp16": BUSY, "tg4": BUSY}, energy={"pp16": Energy(100, 250.0, 1.0)})
    record = report_record(recorded(replace(make_record(run), gpu=GPU)))
    assert "40.00 ms" in terminal_tables.cases(record, 120)
    assert terminal_tables.gpus(record, 120).split()[-3:] == ["2.5", "5.0%", "5.6%"]


def test_record_without_measurements_has_no_tables() -> None:
    record = report_record()
    assert terminal_tables.verdicts(record.items(), 80, colour=False) == terminal_tables.cases(record, 80) == ""
    assert terminal_tables.gpus(record, 80) == ""
