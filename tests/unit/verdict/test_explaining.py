"""What differs between two sides: operators by their extra time, counts, software, settings, machine; in words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.cases import Item, Workload
from pytest_rwkvperf.core.cause import why
from pytest_rwkvperf.core.software import Distribution, Software
from pytest_rwkvperf.core.work import Amount, Reading, WorkCount
from pytest_rwkvperf.machine.fingerprint import Fingerprint
from pytest_rwkvperf.machine.system import System
from pytest_rwkvperf.measure.record import Pairing
from pytest_rwkvperf.verdict import accept, explaining
from pytest_rwkvperf.verdict.judgement import judge_pairs
from pytest_rwkvperf.verdict.reasons import describe
from tests.unit.building import CASE, record_of, slower

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.core.cause import Cause
    from pytest_rwkvperf.measure.record import CaseRecord

ITEM = Item(CASE, Workload("prefill", 512))
RECORD = record_of([[10**9, 10**9 + index] for index in range(6)])
SOFTWARE = Software("Python 3.11", "linux", (Distribution("llama-cpp-python", "0.3.35", "a"),))
HERE = Fingerprint("Linux", "x86_64", "Model of processor", "family 6", 2, 1, ())


def counted(amounts: Mapping[str, Amount], witness: str = "graph") -> Reading:
    return Reading(witness, "nodes", "ggml", {"pp512": WorkCount(512, dict(amounts))})


def record(amounts: Mapping[str, Amount] | None = None, software: Software | None = None) -> CaseRecord:
    return replace(RECORD, witnesses=(counted(amounts),) if amounts else (), software=software)


def between(old: CaseRecord, new: CaseRecord) -> tuple[Cause, ...]:
    return explaining.causes(explaining.of_record(old), explaining.of_record(new), "pp512")


OLD = {
    "MUL_MAT f32": Amount(90, 0, 80_000_000),
    "RWKV_WKV7 f32": Amount(12, 0, 15_000_000),
    "ADD f32": Amount(50, 0, 5_000_000),
}


def test_the_operator_with_the_most_extra_time_comes_first_and_the_rest_together() -> None:
    new = {**OLD, "RWKV_WKV7 f32": Amount(12, 0, 19_660_000), "MUL_MAT f32": Amount(90, 0, 80_400_000)}
    wkv, rest = between(record(OLD), record(new))
    assert str(wkv) == "RWKV_WKV7 +31.1% (15 ms → 19.7 ms, +4.7% of all operators' time; graph)"
    assert rest.what == "everything else"
    assert rest.change == pytest.approx(0.4 / 85)


def test_an_operator_that_is_new_has_no_change_of_its_own() -> None:
    found, rest = between(record(OLD), record({**OLD, "CPY f32": Amount(12, 0, 10_000_000)}))[:2]
    assert (found.kind, found.what, found.change) == ("operator", "CPY", None)
    assert found.share == pytest.approx(0.1)
    assert rest.change == 0


def test_a_faster_operator_stands_after_the_slower_ones() -> None:
    new = {**OLD, "MUL_MAT f32": Amount(90, 0, 60_000_000), "ADD f32": Amount(50, 0, 9_000_000)}
    assert [cause.what for cause in between(record(OLD), record(new))] == ["ADD", "MUL_MAT", "everything else"]


def test_counts_follow_times_and_are_told_without_them() -> None:
    untimed = {name: replace_time(amount) for name, amount in OLD.items()}
    more = {**untimed, "CPY f32": Amount(12), "ADD f32": Amount(75)}
    added, copied = between(record(untimed), record(more))
    assert str(added) == "ADD f32 50 → 75 +50.0% (graph)"
    assert str(copied) == "CPY f32 0 → 12 (graph)"
    timed = between(record(OLD), record({**OLD, "ADD f32": Amount(75, 0, 8_000_000)}))
    assert [cause.kind for cause in timed] == ["operator", "operator", "count"]


def replace_time(amount: Amount) -> Amount:
    return Amount(amount.number, amount.bytes)


def test_larger_results_of_the_same_number_are_told_in_bytes() -> None:
    (found,) = between(record({"ADD": Amount(5, 100)}), record({"ADD": Amount(5, 150)}))
    assert str(found) == "ADD 100 bytes → 150 bytes +50.0% (graph)"


def test_unlike_witnesses_are_not_compared() -> None:
    other = replace(record(OLD), witnesses=(replace(counted({}), instrument="another"),))
    assert between(record(OLD), other) == ()


def test_software_differs_by_all_that_is_known() -> None:
    new = replace(SOFTWARE, distributions=(Distribution("llama-cpp-python", "0.3.36", "b"),), environment={"GGML": "1"})
    found = [str(cause) for cause in between(record(software=SOFTWARE), record(software=new))]
    assert found == ["llama-cpp-python 0.3.35 → 0.3.36", "environment variable GGML= → 1"]
    versions = replace(RECORD, versions={"llama-cpp": "2"})
    assert [str(cause) for cause in between(RECORD, versions)] == ["llama-cpp 1 → 2"]


def test_a_stored_session_tells_only_that_the_build_is_another() -> None:
    built = replace(SOFTWARE, libraries={"libggml.so": "c"})
    (stored,) = accept.stored_cases([record(OLD, SOFTWARE)], {CASE.key: {"pp512"}}, "2026-01-01T00:00:00Z")
    old, new = explaining.of_stored(stored, "pp512", None), explaining.of_record(record(OLD, built))
    assert [str(cause) for cause in explaining.causes(old, new, "pp512")] == ["another build of the same releases"]
    known = explaining.of_stored(stored, "pp512", SOFTWARE)
    assert [str(cause) for cause in explaining.causes(known, new, "pp512")] == ["libggml.so differs"]
    of_another = explaining.of_stored(stored, "pp512", built)
    assert of_another.software is None


def test_settings_and_machine_come_last() -> None:
    there = replace(HERE, cpu="Another processor", gpus=("GPU 24 GiB",))
    system = System("Debian", "3.11", 8 << 30, {"NVIDIA driver": "580"})
    old = explaining.of_record(RECORD, HERE, system)
    busy = replace(RECORD.conditions, foreign=0.4)
    changed = replace(RECORD, conditions=busy, case=replace(CASE, threads=4, settings=(("mmap", "off"),)))
    new = explaining.of_record(changed, there, replace(system, drivers={"NVIDIA driver": "590"}))
    assert [(cause.kind, str(cause)) for cause in explaining.causes(old, new, "pp512")] == [
        ("settings", "threads 2 → 4"),
        ("settings", "own settings none → mmap=off"),
        ("machine", "cpu Model of processor → Another processor"),
        ("machine", "gpus none → GPU 24 GiB"),
        ("machine", "NVIDIA driver 580 → 590"),
        ("machine", "processor time that others took 0% → 40%"),
    ]


def test_a_regression_of_a_pairing_comes_with_its_causes_in_three_lines() -> None:
    new = {name: Amount(2 * amount.number, 0, 2 * amount.nanoseconds) for name, amount in OLD.items()}
    judged = judge_pairs(Pairing(slower(record(new), 2.0), record(OLD)), ITEM, 0.05, 1)
    assert judged.verdict == "REGRESSION"
    lines = [line for line in describe(judged).splitlines() if line.startswith("  why ")]
    assert [line.split()[1] for line in lines] == ["MUL_MAT", "RWKV_WKV7", "ADD"]
    assert lines[-1].endswith("(and 3 more in the record)")


def test_no_other_verdict_is_explained() -> None:
    judged = judge_pairs(Pairing(record({"ADD": Amount(9)}), record(OLD)), ITEM, 0.05, 1)
    assert judged.verdict == "PASS"
    assert judged.causes == ()
    assert "  why " not in describe(judged)


def test_where_nothing_differs_that_is_said() -> None:
    judged = judge_pairs(Pairing(slower(RECORD, 2.0), RECORD), ITEM, 0.05, 1)
    assert describe(judged).splitlines()[-1].startswith("  why    nothing differs that was recorded")
    assert why(()) == [
        "nothing differs that was recorded: not the operators, the software, the settings nor the machine"
    ]
