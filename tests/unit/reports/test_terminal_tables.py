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
from pytest_rwkvperf.reports import terminal_tables
from pytest_rwkvperf.stats.estimates import Rate
from tests.unit.building import CASE, VERDICTS, make_record, make_run, recorded, report_record, with_verdict

if TYPE_CHECKING:
    from pytest_rwkvperf.store.record import RecordedItem

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
    assert header.startswith("backend")
    assert [row.split()[-1] for row in rows] == list(VERDICTS)
    assert all(row.split()[:4] == ["llama-cpp", "q8_0", "cpu", "tg128@d4096"] for row in rows)
    assert rows[1].split()[4:8] == ["1235", "2.4%", "98.77", "0.512"]
    assert "…" not in "".join(rows)


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_table_fits_the_usual_widths(width: int) -> None:
    assert max(map(len, lines(*ALL, width=width))) <= width


def test_narrow_terminal_has_no_bounds_detectable_slowdown_and_parity() -> None:
    header, _, regression, *_ = lines(*ALL)
    assert header.split()[-5:] == ["bounds", "finds", "parity", "by", "verdict"]
    assert regression.split()[-5:] == ["0.46-0.57", "9%", "1.0e-04", "stored", "REGRESSION"]
    assert lines(*ALL, width=80)[0].split()[-2:] == ["ratio", "verdict"]


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
    for text in (terminal_tables.verdicts(record.items(), 120, colour=False), terminal_tables.cases(record)):
        assert text.splitlines()[1].split()[:3] == ["my[red]engine[/red]", "[bold]q8", ":smile:"]


def test_figures_of_cases_have_units() -> None:
    measured = make_record(make_run(load=1_500_000_000, peak=300 << 20, pp16=(40_000_000,), tg4=(8_000_000,)))
    header, figures = terminal_tables.cases(report_record(recorded(measured))).splitlines()
    assert header.endswith("file")
    for figure in ("1.50 s", "40.0 ms", "2.00 ms", "300 MiB"):
        assert figure in figures


def test_gpu_table_has_device_time_beside_the_drivers_utilisation() -> None:
    reading = GpuReading(1e9 + 0.001, sm_mhz=1980, utilisation=95, celsius=40, own_bytes=6 << 30)
    run = replace(make_run(pp16=(40_000_000,), tg4=(8_000_000,)), device_time={"pp16": BUSY})
    measured = replace(make_record(run), gpu=replace(GPU, readings=(reading,)))
    header, figures = terminal_tables.gpus(report_record(recorded(measured))).splitlines()
    assert " ".join(header.split()).endswith("pp busy tg busy pp device tg device SM clock hottest")
    assert figures.split()[-7:] == ["95%", "95%", "5.0%", "1980-1980", "MHz", "40", "°C"], "no tg device: not recorded"


def test_gpu_table_names_the_protocol() -> None:
    measured = replace(make_record(make_run(pp16=(40_000_000,))), gpu=GPU)
    native = replace(measured, case=replace(measured.case, protocol="native"))
    _, *rows = terminal_tables.gpus(report_record(recorded(measured), recorded(native))).splitlines()
    assert ["(native)" in row for row in rows] == [False, True]


def test_case_is_shown_by_its_least_depth_which_alone_has_energy_and_device_time() -> None:
    times: dict[str, Any] = {"pp16": 40_000_000, "pp16@d64": 50_000_000, "tg4@d64": 8_000_000, "tg4": 9_000_000}
    run = make_run(**{name: (time,) for name, time in times.items()})  # type: ignore[arg-type]  # its own are positional
    run = replace(run, device_time={"pp16": BUSY, "tg4": BUSY}, energy={"pp16": Energy(100, 250.0, 1.0)})
    record = report_record(recorded(replace(make_record(run), gpu=GPU)))
    assert "40.0 ms" in terminal_tables.cases(record)
    assert terminal_tables.gpus(record).split()[-3:] == ["2.5", "5.0%", "5.6%"]


def test_record_without_measurements_has_no_tables() -> None:
    record = report_record()
    assert terminal_tables.verdicts(record.items(), 80, colour=False) == terminal_tables.cases(record) == ""
    assert terminal_tables.gpus(record) == ""
