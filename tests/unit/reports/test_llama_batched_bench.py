"""llama-batched-bench's formats: what it prints (tests/unit/store/exchanged), and back again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.core.errors import ReportError
from pytest_rwkvperf.reports import formats, llama_batched_bench
from pytest_rwkvperf.reports.llama_batched_bench import Line, lines
from pytest_rwkvperf.store import exchanged, speeds
from tests.unit.building import CASE, make_record, make_run, recorded, report_record

if TYPE_CHECKING:
    from pytest_rwkvperf.store.record import Record

THEIRS = json.loads(
    (Path(__file__).parents[1] / "store" / "exchanged" / "batched_bench.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()[0]
)
TIMES = {
    "pp128": [64_000_000, 65_000_000],
    "tg32@d128": [160_000_000, 161_000_000],
    "pp128@b4": [256_000_000, 257_000_000],
    "tg32@d128@b4": [320_000_000, 322_000_000],
    "tg16@b4": [100_000_000, 101_000_000],
    "pp64@d32": [50_000_000, 51_000_000],
}
OWN = (("flash-attn", "off"), ("ubatch", "64"))
PROGRAM = replace(CASE, backend="llama-batched-bench", protocol="native")


def record(*cases: Case) -> Record:
    runs = make_run(**TIMES)  # type: ignore[arg-type]  # its other keywords are numbers
    return report_record(*(recorded(make_record(runs, case=case)) for case in cases))


def rows(*cases: Case) -> list[dict[str, object]]:
    text = llama_batched_bench.JSONL.render(record(*cases), "en")[""]
    return [json.loads(line) for line in text.splitlines()]


def test_formats_are_known_by_their_names() -> None:
    assert formats.load("llama-batched-bench-jsonl") is llama_batched_bench.JSONL
    assert formats.load("llama-batched-bench-md") is llama_batched_bench.MARKDOWN


def test_lines_have_the_programs_fields_and_figures() -> None:
    found = rows(CASE)
    assert [(row["pp"], row["tg"], row["pl"]) for row in found] == [(0, 16, 4), (128, 32, 1), (128, 32, 4)]
    first = found[1]
    assert list(first) == [*THEIRS, "case", "convention"]
    for name in ("pp", "tg", "pl", "n_kv", "is_pp_shared", "n_ubatch", "n_threads", "flash_attn"):
        assert first[name] == THEIRS[name]
    for name in ("t_pp", "t_tg", "speed_pp", "speed_tg", "t", "speed"):
        assert first[name] == pytest.approx(THEIRS[name], rel=0.01)


@pytest.mark.parametrize(
    ("case", "n_batch", "n_ubatch", "layers", "flash"),
    [
        (CASE, 512, 512, 0, -1),
        (replace(CASE, settings=OWN, device="cuda:0"), 512, 64, -1, 0),
        (PROGRAM, 2048, 512, 0, -1),
        (replace(PROGRAM, settings=OWN), 512, 64, 0, 0),
        (replace(PROGRAM, device="cuda:0"), 2048, 512, 99, -1),
    ],
)
def test_settings_are_those_that_were_measured(
    case: Case, n_batch: int, n_ubatch: int, layers: int, flash: int
) -> None:
    row = rows(case)[0]
    assert [row[name] for name in ("n_batch", "n_ubatch", "n_gpu_layers", "flash_attn")] == [
        n_batch, n_ubatch, layers, flash,
    ]  # fmt: skip


def test_every_speed_reads_back_under_its_series_and_convention() -> None:
    written = record(CASE, replace(CASE, settings=OWN), PROGRAM)
    found = exchanged.parse(llama_batched_bench.JSONL.render(written, "en")[""], Path("file"))
    assert found is not None
    given = {speed.name: speed.value for speed in speeds.of_record(written) if "@d32" not in speed.name}
    assert {speed.name: speed.value for speed in found} == {name: pytest.approx(value) for name, value in given.items()}
    assert len(given) == 15


def test_a_table_for_each_case_is_laid_out_as_the_programs() -> None:
    text = llama_batched_bench.MARKDOWN.render(record(CASE, PROGRAM), "en")[""]
    head = "|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |"
    rule = "|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|"
    told = text.splitlines()
    assert told[0] == "llama-cpp synthetic:nano q8_0 cpu t2"
    assert told[2].startswith("llama_batched_bench: n_kv_max = 640, n_batch = 512, n_ubatch = 512, flash_attn = -1, ")
    assert told[4] == head
    assert told[5] == rule
    assert [cell.strip() for cell in told[7].split("|")][1:5] == ["128", "32", "1", "160"]
    assert {len(line) for line in told if line.startswith("|")} == {len(head)}
    assert text.count(head) == 2


def test_a_generation_stands_beside_the_prefill_of_its_context() -> None:
    def made(**taken: float) -> list[Line]:
        return lines({Workload.parse(name.replace("_", "@")): speed for name, speed in taken.items()})

    assert made(pp8_b2=10.0, tg4_d8_b2=5.0) == [Line(8, 4, 2, 10.0, 5.0)]
    assert made(pp8_b2=10.0, tg4_d8=5.0, tg4_b2=3.0) == [
        Line(0, 4, 2, 0.0, 3.0),
        Line(8, 0, 2, 10.0),
        Line(8, 4, 1, 0.0, 5.0),
    ]
    assert made(pp8=10.0, tg4_d8=5.0, tg2_d8=6.0) == [Line(8, 2, 1, 10.0, 6.0), Line(8, 4, 1, 10.0, 5.0)]
    assert made(pp8_d4=10.0) == []
    assert Line(8, 4, 2, 16.0, 4.0).seconds == (1.0, 2.0)
    assert Line(8, 4, 2, 16.0, 4.0).speed == 8.0


def test_a_record_without_such_a_speed_has_no_report() -> None:
    only = report_record(recorded(make_record(make_run(pp8=[10**6]), case=CASE)))
    text = llama_batched_bench.JSONL.render(only, "en")[""]
    assert json.loads(text)["speed_pp"] == 8000.0
    deep = report_record(recorded(make_record(make_run(**{"pp8@d4": [10**6]}), case=CASE)))  # type: ignore[arg-type]
    with pytest.raises(ReportError, match="no speed may count that llama-batched-bench measures"):
        llama_batched_bench.JSONL.render(deep, "en")
