"""The format of baseline files: round trips, readable diffs, size, merging, and refusal of invalid files."""

from __future__ import annotations

import json
import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings

from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.errors import BaselineError
from pytest_rwkvperf.machine.fingerprint import Fingerprint
from pytest_rwkvperf.stats.estimates import MAX_NANOSECONDS
from pytest_rwkvperf.stats.shrinkage import PROCESS_PRIOR
from pytest_rwkvperf.stats.verdicts import MAX_SESSIONS
from pytest_rwkvperf.store.baseline import VERSION, Baseline, BaselineEntry, StoredCase, dumps, loads
from tests.unit.store.contents import baselines
from tests.unit.store.damage import damaged as damaged_files
from tests.unit.store.damage import outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeStored = Callable[..., StoredCase]

PATH = Path("baselines/here.json")

LIKE_A_LIST = Baseline(Fingerprint("Linux", "[ 1,  2 ]", "[\n 3 ]", "[\t4]", 1, 1, ("[ 5 ]",)))


@settings(max_examples=50)
@given(baselines())
@example(LIKE_A_LIST)
def test_a_baseline_survives_a_round_trip(baseline: Baseline) -> None:
    assert loads(dumps(baseline), PATH) == baseline


@settings(max_examples=30)
@given(baselines())
def test_insertion_order_does_not_change_the_file(baseline: Baseline) -> None:
    backwards = replace(
        baseline,
        cases={
            key: replace(
                stored,
                sessions=tuple(
                    replace(
                        session,
                        workloads=dict(reversed(session.workloads.items())),
                        versions=dict(reversed(session.versions.items())),
                    )
                    for session in stored.sessions
                ),
            )
            for key, stored in reversed(baseline.cases.items())
        },
    )
    assert dumps(backwards) == dumps(baseline)


def test_each_process_has_one_line_and_keys_are_sorted(machine: Fingerprint, make_stored: MakeStored) -> None:
    stored = make_stored(tg128=((7, 8, 9),))
    text = dumps(Baseline(machine).with_case(stored, replacing=False))
    assert text.endswith("}\n")
    lines = text.splitlines()
    # Each process's samples on one line, one process below the other.
    first = next(index for index, line in enumerate(lines) if line.strip() == '"pp512": [')
    assert [line.strip() for line in lines[first + 1 : first + 4]] == ["[1000001, 1000002],", "[1000003]", "],"]
    assert sum(line.strip() == "[7, 8, 9]" for line in lines) == 1
    assert max(map(len, lines)) < 120
    keys = [line.split('"')[1] for line in lines if re.match(r'  "', line)]
    assert keys == ["cases", "fingerprint", "noise", "schema"]


def test_adding_a_session_adds_lines_and_changes_none(machine: Fingerprint, make_stored: MakeStored) -> None:
    before = Baseline(machine).with_case(make_stored(), replacing=False)
    after = before.with_case(make_stored(recorded="2026-02-02T00:00:00Z"), replacing=False)
    old_lines, new_lines = dumps(before).splitlines(), dumps(after).splitlines()
    rest = iter(new_lines)
    # Only a comma is added after the old session.
    assert all(any(line.rstrip(",") == old.rstrip(",") for line in rest) for old in old_lines)


def full(processes: int) -> Baseline:
    """Twelve cases with two workloads, the most sessions that are kept, and the samples of quick workloads."""
    source = random.Random(1)

    def rows(low: int, high: int) -> dict[str, tuple[tuple[int, ...], ...]]:
        """A number for each repetition of each process."""
        return {
            name: tuple(tuple(source.randrange(low, high) for _ in range(10)) for _ in range(processes))
            for name in ("pp512", "tg128")
        }

    baseline = Baseline(Fingerprint("Linux", "x86_64", "AMD EPYC 9B14", "family 25 model 17 stepping 1", 2, 1))
    for number in range(12):
        case = Case("llama-cpp", "synthetic:nano", f"q{number}_k_m", "vulkan:0", 2, 512)
        sessions = tuple(
            BaselineEntry(
                "2026-01-01T00:00:00Z",
                {"llama-cpp-python": "0.3.36", "llama.cpp": f"b{day}"},
                1,
                1.25,
                0.0125,
                rows(10**7, 10**8),
                "77b8a379667f",
                {name: tuple(source.randrange(10**6, 10**8) for _ in range(processes)) for name in ("pp512", "tg128")},
                handovers=rows(60_000, 200_000),
            )
            for day in range(MAX_SESSIONS)
        )
        stored = StoredCase(
            case, "0" * 64, Device("vulkan:0", "llvmpipe (LLVM 15.0.6, 256 bits)", "software"), sessions
        )
        baseline = replace(baseline, cases={**baseline.cases, case.key: stored})
    return baseline


@pytest.mark.parametrize(("processes", "limit"), [(5, 360_000), (20, 1_150_000)])
def test_a_full_baseline_stays_under_its_documented_size(processes: int, limit: int) -> None:
    baseline = full(processes)
    text = dumps(baseline)
    assert loads(text, PATH).cases.keys() == baseline.cases.keys()
    assert len(text.encode()) < limit


@pytest.mark.parametrize(
    ("field", "called", "valid", "invalid"),
    [
        ("probes", "probe times", (5, 6), [(5,), (5, 6, 7), (5, 0), (5, -1)]),
        (
            "handovers", "handovers", ((5, 6), (7, 8)),
            [((5, 6),), ((5, 6), (7, 8), (9, 9)), ((5, 6), (7,)), ((5, 6), (7, 0))],
        ),
    ],
)  # fmt: skip
def test_probes_and_handovers_that_do_not_fit_the_times_are_refused(
    field: str, called: str, valid: object, invalid: list[object], machine: Fingerprint, make_stored: MakeStored
) -> None:
    def read(values: object) -> None:
        stored = make_stored()
        changed: dict[str, Any] = {field: {"pp512": values}}
        session = replace(stored.sessions[0], probe_version="1", workloads={"pp512": ((1, 2), (3, 4))}, **changed)
        loads(dumps(Baseline(machine).with_case(replace(stored, sessions=(session,)), replacing=False)), PATH)

    read(valid)
    for values in invalid:
        with pytest.raises(BaselineError, match=rf"pp512 has unusable {called}; restore it"):
            read(values)


def test_the_fastest_handover_is_found_by_threads_and_version(machine: Fingerprint, make_stored: MakeStored) -> None:
    def stored(threads: int, version: str, *handovers: int) -> StoredCase:
        case = make_stored()
        session = replace(case.sessions[0], probe_version=version, handovers={"pp512": (handovers,)})
        return replace(case, case=replace(case.case, threads=threads), sessions=(session,))

    baseline = Baseline(machine)
    for case in (stored(2, "v", 70, 105), stored(2, "w", 60, 61), stored(2, "v", 71, 72), stored(4, "v", 50, 50)):
        baseline = baseline.with_case(case, replacing=False)
    assert baseline.fastest_handovers(2) == {"v": 70, "w": 60.5}
    assert baseline.fastest_handovers(4) == {"v": 50}
    assert baseline.fastest_handovers(1) == {}


# Merging


def test_saving_one_case_leaves_the_others(machine: Fingerprint, make_stored: MakeStored) -> None:
    changed, other = make_stored("rwkv"), make_stored("web-rwkv")
    baseline = Baseline(machine).with_case(changed, replacing=False).with_case(other, replacing=False)
    for replacing in (False, True):
        after = baseline.with_case(make_stored("rwkv", recorded="later"), replacing=replacing)
        assert after.cases[other.case.key] == other
        assert list(baseline.cases) == list(after.cases)


def test_sessions_are_kept_in_order_up_to_the_limit(machine: Fingerprint, make_stored: MakeStored) -> None:
    baseline = Baseline(machine)
    for number in range(MAX_SESSIONS + 3):
        baseline = baseline.with_case(make_stored(recorded=f"{number:02}"), replacing=False)
    (stored,) = baseline.cases.values()
    kept = [f"{number:02}" for number in range(3, MAX_SESSIONS + 3)]
    assert [session.recorded for session in stored.sessions] == kept


def test_sessions_are_ordered_by_date(machine: Fingerprint, make_stored: MakeStored) -> None:
    new, old = make_stored(recorded="2026", version="2"), make_stored(recorded="2025", version="1")
    baseline = Baseline(machine).with_case(new, replacing=False).with_case(old, replacing=False)
    (stored,) = baseline.cases.values()
    assert [session.recorded for session in stored.sessions] == ["2025", "2026"]
    assert stored.comparable_sessions("pp512") == new.sessions
    by_hand = replace(stored, sessions=(*new.sessions, *old.sessions))
    assert by_hand.comparable_sessions("pp512") == new.sessions


def test_sessions_are_limited_per_workload(machine: Fingerprint, make_stored: MakeStored) -> None:
    baseline = Baseline(machine).with_case(make_stored(recorded="00", tg128=((5,),)), replacing=False)
    for number in range(1, MAX_SESSIONS + 1):
        newer = make_stored(recorded=f"{number:02}", pp512=None, tg128=((6,),))
        baseline = baseline.with_case(newer, replacing=False)
    (stored,) = baseline.cases.values()
    assert len(stored.sessions) == MAX_SESSIONS + 1
    assert [list(session.workloads) for session in stored.sessions] == [["pp512"]] + [["tg128"]] * MAX_SESSIONS
    assert [session.recorded for session in stored.comparable_sessions("pp512")] == ["00"]


def test_replacing_drops_the_workloads_it_timed_and_no_others(machine: Fingerprint, make_stored: MakeStored) -> None:
    baseline = (
        Baseline(machine)
        .with_case(make_stored(recorded="both", tg128=((5,),)), replacing=False)
        .with_case(make_stored(recorded="prefill"), replacing=False)
        .with_case(make_stored(recorded="new", pp512=((7,),)), replacing=True)
    )
    (stored,) = baseline.cases.values()
    assert [(session.recorded, session.workloads) for session in stored.sessions] == [
        ("both", {"tg128": ((5,),)}),
        ("new", {"pp512": ((7,),)}),
    ]


@pytest.mark.parametrize(
    "changed", [{"model_hash": "b" * 64}, {"device": Device("cpu", "another CPU", "cpu")}], ids=["model", "device"]
)
def test_another_model_or_device_under_the_same_name_is_stored_only_by_replacing(
    changed: dict[str, Any], machine: Fingerprint, make_stored: MakeStored
) -> None:
    old, new = make_stored(recorded="old", tg128=((5,),)), make_stored(recorded="new", **changed)
    baseline = Baseline(machine).with_case(old, replacing=False)
    assert baseline.with_case(new, replacing=True).cases == {new.case.key: new}
    with pytest.raises(BaselineError, match="--rwkv-save-baseline=replace drops those sessions"):
        baseline.with_case(new, replacing=False)


def test_a_device_with_a_newer_driver_is_the_same_device(machine: Fingerprint, make_stored: MakeStored) -> None:
    old = make_stored(device=Device("vulkan:0", "llvmpipe", "software", "Mesa 22"))
    new = make_stored(device=Device("vulkan:0", "llvmpipe", "software", "Mesa 25"))
    (stored,) = Baseline(machine).with_case(old, replacing=False).with_case(new, replacing=False).cases.values()
    assert stored.sessions == (*old.sessions, *new.sessions)
    assert stored.device.detail == "Mesa 25"


def test_the_reference_is_the_newest_software_that_timed_the_workload(make_stored: MakeStored) -> None:
    made = [
        make_stored(recorded="0", version="1", tg128=((1,),)),
        make_stored(recorded="1", version="2", tg128=((1,),)),
        make_stored(recorded="2", version="1", tg128=((1,),)),
        make_stored(recorded="3", version="2", tg128=((1,),)),
        make_stored(recorded="4", version="3"),
    ]
    stored = replace(made[0], sessions=tuple(case.sessions[0] for case in made))
    assert [session.recorded for session in stored.comparable_sessions("tg128")] == ["1", "3"]
    assert [session.recorded for session in stored.comparable_sessions("pp512")] == ["4"]
    assert stored.comparable_sessions("pp16") == ()


def test_sessions_of_another_protocol_are_not_the_reference(make_stored: MakeStored) -> None:
    made = [make_stored(recorded="0", protocol=1), make_stored(recorded="1", protocol=2)]
    stored = replace(made[0], sessions=tuple(case.sessions[0] for case in made))
    assert [session.recorded for session in stored.comparable_sessions("pp512")] == ["1"]


# Invalid files


@pytest.fixture
def good(machine: Fingerprint, make_stored: MakeStored) -> str:
    both = Baseline(machine).with_case(make_stored(), replacing=False).with_case(make_stored("rwkv"), replacing=False)
    return dumps(both)


def refused(text: str, message: str) -> None:
    with pytest.raises(BaselineError, match=message) as caught:
        loads(text, PATH)
    assert str(caught.value).startswith(f"baseline {PATH}")


def test_a_truncated_file_is_refused(good: str) -> None:
    whole = good.rstrip()
    for length in range(0, len(whole), 7):
        refused(whole[:length], "is not valid JSON .*; restore it from version control or move it away")


@pytest.mark.parametrize(
    "text",
    [
        "", "\0" * 64, "<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> other\n", "[" * 100_000, '{"schema": NaN}',
        '{"schema": -Infinity}', '{"schema": 1e999}',
        '\ufeff{"schema": 1}', '{"\\ud800": 1}', '{"schema": ["\\udfff"]}', '{"schema": 2, "schema": 2}',
    ],
    ids=[
        "empty", "zeros", "conflict", "deep", "NaN", "Infinity", "overflow", "BOM", "surrogate key", "surrogate",
        "repeated",
    ],
)  # fmt: skip
def test_invalid_json_is_refused(text: str) -> None:
    refused(text, "is not valid JSON")


def test_a_key_that_stands_twice_is_refused_and_named(good: str) -> None:
    """As git's union merge leaves it: two branches' lines in one object."""
    line = next(line for line in good.splitlines() if '"recorded"' in line)
    refused(good.replace(line, f"{line}\n{line}", 1), "the key 'recorded' stands twice in one object.*restore it")


@pytest.mark.parametrize("text", ["[]", "null", '"text"', "{}", "1"])
def test_json_without_a_schema_is_refused(text: str) -> None:
    refused(text, "has no valid schema number")


@pytest.mark.parametrize("value", [VERSION + 1, 99, 10**30])
def test_a_newer_schema_is_refused_with_advice(value: int, good: str) -> None:
    newer = {"schema": value, "something": "else"}
    for text in (json.dumps(newer), json.dumps({**json.loads(good), **newer})):
        refused(text, f"has schema {value}, this release reads up to {VERSION}; upgrade pytest-rwkvperf")


CASE = ("cases", "llama-cpp | synthetic:nano | f16 | cpu | threads=2 chunk=512")
SESSION = (*CASE, "sessions", 0)
SAMPLES = (*SESSION, "workloads", "pp512")


def damaged(good: str, place: tuple[Any, ...], value: object) -> str:
    raw = json.loads(good)
    inner = raw
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return json.dumps(raw)


REFUSED: dict[str, list[tuple[tuple[Any, ...], object]]] = {
    "has no valid schema number": [(("schema",), value) for value in ("1", True, 0, -1, 1.0, None, [1])],
    r"does not follow its schema: .* - at `\$\.": [
        (("cases",), []),
        (("cases",), None),
        (("fingerprint",), {}),
        (("fingerprint", "cores"), "2"),
        (("fingerprint", "gpus"), "H200"),
        (CASE, "case"),
        ((*CASE, "case", "threads"), 2.5),
        ((*CASE, "case", "chunk"), True),
        ((*CASE, "device", "kind"), "tpu"),
        ((*CASE, "model_hash"), None),
        ((*CASE, "sessions"), {}),
        ((*SESSION, "versions"), {"rwkv": 1}),
        ((*SESSION, "protocol"), "1"),
        ((*SESSION, "steal"), "0"),
        (SAMPLES, [1, 2]),
        (SAMPLES, "1"),
        ((*SAMPLES, 0, 0), 1.5),
        ((*SAMPLES, 0, 0), "1"),
        ((*SAMPLES, 0, 0), None),
        ((*SAMPLES, 0, 0), True),
    ],
    "unknown key ''": [(("fingerprint", ""), [])],
    r"llama-cpp \| .*.*, .pp512. holds no usable times": [
        *(((*SAMPLES, 1, 0), value) for value in (0, -1, MAX_NANOSECONDS + 1, 10**300)),
        *((SAMPLES, rows) for rows in ((), [()], [(1,), ()])),
    ],
    "is no spread of prefill times": [
        (("noise",), {"prefill": {"recorded": "2026-11-29T00:00:00Z", "spread": spread, "freedom": 3.0}})
        for spread in (0.0, -0.1, 42.0, 1e200)
    ],
    "case 'llama-cpp .* f16 .*' describes 'llama-cpp .* q8_0": [((*CASE, "case", "quant"), "q8_0")],
}


@pytest.mark.parametrize(
    ("message", "place", "value"), [(message, *change) for message, changes in REFUSED.items() for change in changes]
)
def test_an_invalid_value_is_refused(message: str, place: tuple[Any, ...], value: object, good: str) -> None:
    refused(damaged(good, place, value), message)


def test_a_missing_field_is_refused_and_named(good: str) -> None:
    raw = json.loads(good)
    del raw["fingerprint"]
    refused(json.dumps(raw), "does not follow its schema: .*fingerprint")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "-1e999", str(10**400)])
def test_conditions_that_are_not_numbers_are_refused(value: str, good: str) -> None:
    refused(good.replace('"load_before": 0.5', f'"load_before": {value}', 1), "is not valid JSON")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged_files())
def test_a_damaged_file_is_refused_or_read_whole(text: str) -> None:
    """`make prove ARGS=store` reads many more."""
    outcome(text)


def test_reading_opens_no_path_that_the_file_names(good: str) -> None:
    raw = json.loads(good)
    stored = next(iter(raw["cases"].values()))
    stored["model_hash"] = stored["device"]["name"] = stored["sessions"][0]["recorded"] = "/etc/passwd"
    raw["fingerprint"]["cpu"] = "/etc/shadow"
    opened: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in {"open", "os.listdir", "subprocess.Popen", "os.system", "exec", "compile", "import"}:
            opened.append(f"{event} {arguments[0]!r}")

    watching = True
    sys.addaudithook(lambda *call: watch(*call) if watching else None)  # audit hooks cannot be removed
    loads(json.dumps(raw), PATH)
    watching = False
    assert opened == []


# Sessions that were measured beside other busy processes


def dated(day: int, foreign: float, software: str = "") -> BaselineEntry:
    recorded = f"2026-01-{day:02}T00:00:00Z"
    return BaselineEntry(
        recorded, {"engine": "1"}, 1, 0.0, 0.0, {"pp512": ((day,),)}, foreign=foreign, software=software
    )


def days(sessions: tuple[BaselineEntry, ...]) -> list[int]:
    return [int(session.recorded[8:10]) for session in sessions]


def test_crowded_sessions_are_never_pooled_with_calm_ones(make_stored: MakeStored) -> None:
    stored = replace(make_stored(), sessions=(dated(1, 0.5), dated(2, 0.0), dated(3, 0.11), dated(4, 0.02)))
    assert days(stored.comparable_sessions("pp512")) == [2, 4]
    assert [session.times for session in stored.sessions_of("pp512", "").sessions] == [((2,),), ((4,),)]


def test_a_crowded_session_of_newer_software_hides_no_calm_one(make_stored: MakeStored) -> None:
    stored = replace(make_stored(), sessions=(dated(1, 0.0, "old"), dated(2, 0.5, "new")))
    assert days(stored.comparable_sessions("pp512")) == [1]
    alone = replace(stored, sessions=stored.sessions[1:])
    assert days(alone.comparable_sessions("pp512")) == [2], "the only one is shown, though no verdict rests on it"


def test_crowded_sessions_push_out_no_calm_ones(machine: Fingerprint, make_stored: MakeStored) -> None:
    baseline = Baseline(machine)
    for day in range(1, MAX_SESSIONS + 4):
        crowded = day > 3
        session = dated(day, 0.5 if crowded else 0.0)
        baseline = baseline.with_case(replace(make_stored(), sessions=(session,)), replacing=False)
    (stored,) = baseline.cases.values()
    assert days(stored.sessions) == [1, 2, 3, *range(7, MAX_SESSIONS + 4)]


def test_handovers_beside_other_processes_are_not_taken_for_this_machines(
    machine: Fingerprint, make_stored: MakeStored
) -> None:
    sessions = tuple(
        replace(dated(day, foreign), probe_version="p", handovers={"pp512": ((handover,),)})
        for day, foreign, handover in ((1, 0.5, 50), (2, 0.0, 70))
    )
    stored = replace(make_stored(), sessions=sessions)
    baseline = Baseline(machine, cases={stored.case.key: stored})
    assert baseline.fastest_handovers(stored.case.threads) == {"p": 70}


def test_how_far_processes_lie_apart_is_learnt_from_calm_sessions(
    machine: Fingerprint, make_stored: MakeStored
) -> None:
    def session(day: int, foreign: float, apart: float) -> BaselineEntry:
        times = tuple((round(10**9 * (1 + apart * process)),) for process in range(5))
        return replace(dated(day, foreign), workloads={"pp512": times})

    calm = tuple(session(day, 0.0, 0.005) for day in range(1, 6))
    crowded = tuple(session(day, 0.5, 0.3) for day in range(6, 9))
    stored = replace(make_stored(), sessions=(*calm, *crowded))
    found = Baseline(machine, cases={stored.case.key: stored}).process_spread("prefill")
    assert found.variance**0.5 == pytest.approx(0.0078, rel=0.1)
    assert found.freedom > 5
    assert Baseline(machine, cases={stored.case.key: stored}).process_spread("generation") == PROCESS_PRIOR
