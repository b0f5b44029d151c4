"""How speed grows with the number of sequences: rows, limits, and the places that show them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.machine.roofline import Ceilings, TokenWork
from pytest_rwkvperf.reports import batches, figures, formats, llama_bench_rows, plots, terminal_tables
from pytest_rwkvperf.reports.sections.scaling import scaling
from pytest_rwkvperf.reports.sections.shown import Shown
from tests.unit.building import make_record, passed, recorded, report_record, run_of

if TYPE_CHECKING:
    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.store.record import Record

MIB = 1 << 20
FACTOR = f"{figures.TIMES} b1"
TIMES = {
    "pp512": [10**9],
    "tg128": [128 * 10**7],
    "tg128@b2": [128 * 11 * 10**6],
    "tg128@b8": [128 * 2 * 10**7],
    "tg8@d4@b8": [8 * 10**7],
}
WORK = TokenWork(decode_bytes=1.1e9, layer_operations=1e9, head_operations=1e8, product="fp32", state_bytes=1e8)
CEILINGS = Ceilings(1e11, {"fp32": 2e12}, "made up")


def measured(**memory: int) -> CaseRecord:
    run = replace(run_of(TIMES), memory={name.replace("_", "@"): held for name, held in memory.items()})
    return replace(make_record(run, run), work=WORK, ceilings=CEILINGS)


def of(record: CaseRecord) -> Record:
    return report_record(recorded(record, *passed(record)))


def test_a_row_has_the_speed_of_all_and_of_each_and_its_multiple_of_one() -> None:
    rows = batches.rows(batches.scalings(of(measured(tg128=500 * MIB, tg128_b2=520 * MIB, tg128_b8=580 * MIB))))
    columns = ("workload", "batch", "t/s", FACTOR, "t/s each", "memory each")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        ("tg128", "1", "100.0", "1.00", "100.0", ""),
        ("tg128", "2", "181.8", "1.82", "90.91", "10 MiB"),
        ("tg128", "8", "400.0", "4.00", "50.00", "10 MiB"),
    ]
    assert [row["step p50"] for row in rows] == ["10.00 ms", "11.00 ms", "20.00 ms"]
    assert rows[2]["MBU"] == "90%", "1.1e9 and seven times 1e8 bytes in 20 ms, of 1e11 a second"


def test_memory_that_did_not_grow_or_was_not_noted_is_left_out() -> None:
    rows = batches.rows(batches.scalings(of(measured(tg128=500 * MIB, tg128_b2=499 * MIB))))
    assert {row["memory each"] for row in rows} == {""}


def test_a_row_has_the_energy_of_a_token_where_it_was_read() -> None:
    record = measured()
    items = [
        replace(item, joules_per_token=0.25, net_joules_per_token=0.125) if item.workload == "tg128@b8" else item
        for item in passed(record)
    ]
    rows = batches.rows(batches.scalings(report_record(recorded(record, *items))))
    assert [row["J/token"] for row in rows] == ["", "", "0.25 (0.125)"]


def test_a_workload_of_one_number_of_sequences_has_no_rows() -> None:
    run = run_of({"tg128": [10**9], "pp512@b4": [10**9]})
    assert batches.scalings(of(make_record(run, run))) == []
    assert scaling(Shown.of(of(make_record(run, run)))) is None
    assert terminal_tables.scaling(of(make_record(run, run)), 200) == ""


def test_a_wrong_answers_speed_is_left_out() -> None:
    record = measured()
    items = [replace(item, verdict="INVALID") if "b2" in item.workload else item for item in passed(record)]
    (found,) = batches.scalings(report_record(recorded(record, *items)))
    assert [point.workload.batch for point in found.points] == [1, 8]


def test_without_a_single_sequence_there_is_no_multiple() -> None:
    run = run_of({"tg128@b2": [10**9], "tg128@b4": [10**9]})
    rows = batches.rows(batches.scalings(of(make_record(run, run))))
    assert [(row["batch"], row[FACTOR]) for row in rows] == [("2", ""), ("4", "")]


def test_the_limit_is_the_weights_read_once_then_the_states_or_the_products() -> None:
    (found,) = batches.scalings(of(measured()))
    limits = found.limits([1, 10, 1000])
    assert limits is not None
    assert limits[0] == pytest.approx(1e11 / 1.1e9)
    assert limits[1] == pytest.approx(10 * 1e11 / 2e9)
    assert limits[2] == pytest.approx(min(1000 * 1e11 / (1e9 + 1000 * 1e8), 2e12 / 1.1e9))
    prefill = replace(found, workload=Workload("prefill", 512)).limits([1, 8])
    assert prefill == pytest.approx([2e12 / (1e9 + 1e8 / 512), 2e12 / (1e9 + 8 * 1e8 / 512)])
    old = replace(measured(), work=replace(WORK, state_bytes=0.0))
    assert batches.scalings(of(old))[0].limits([1]) is None, "a record of an earlier release"


def test_products_bound_where_they_take_longer_than_the_memory() -> None:
    (found,) = batches.scalings(of(replace(measured(), ceilings=Ceilings(1e11, {"fp32": 1e11}))))
    assert found.limits([1000]) == pytest.approx([1e11 / 1.1e9])


def test_a_curve_has_points_a_roof_and_ticks_that_do_not_overlap() -> None:
    points = [(float(2**index), 100.0 * 1.5**index) for index in range(9)]
    curve = plots.curve(points, [(size, 2 * speed) for size, speed in points])
    assert curve.paths["samples"].count("M") == 9
    assert curve.paths["roof"].count("L") == 8
    assert curve.across[-1].value == 256
    assert all(after.at - before.at > 6 for before, after in zip(curve.across, curve.across[1:], strict=False))
    assert [tick.value for tick in curve.up] == [100, 200, 500, 1000, 2000, 5000]
    assert "roof" not in plots.curve(points[:1], []).paths
    assert [tick.value for tick in plots.curve([(1.0, 2600.0), (8.0, 2400.0)], []).up] == [2000, 2500, 3000]
    whiskers = plots.curve(points, [], [(1.0, 90.0, 1e9)])
    assert whiskers.paths["whisker"].count("V") == 1
    assert len(whiskers.up) >= 3
    wide = plots.curve([(1.0, 1.0), (2.0, 9000.0)], [])
    assert [tick.value for tick in wide.up] == [1, 10, 100, 1000, 10000]


def test_every_report_for_people_has_the_table() -> None:
    record = of(measured(tg128=500 * MIB, tg128_b8=580 * MIB))
    table = terminal_tables.scaling(record, 200)
    assert "t/s each" in table
    assert len(table.splitlines()) == 4
    assert max(map(len, terminal_tables.scaling(record, 60).splitlines())) <= 60
    (markdown,) = formats.load("markdown").render(record, "en").values()
    assert "| t/s each |" in markdown.replace("  ", " ")
    (page,) = formats.load("html").render(record, "en").values()
    assert "Several sequences at once" in page
    assert 'class="roof"' in page


def test_llama_benchs_formats_which_have_no_batches_leave_them_out() -> None:
    found = llama_bench_rows.rows(of(measured()))
    assert [row.test for row in found] == ["pp512", "tg128"]


def test_the_case_s_figures_are_those_of_a_single_sequence() -> None:
    case = recorded(measured(), *passed(measured()))
    longest = figures.longest(case, "generation")
    assert longest is not None
    assert longest.workload == "tg128"
