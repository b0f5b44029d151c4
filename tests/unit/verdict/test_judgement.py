"""The verdict on an item against a baseline, and its description."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pytest_rwkvperf.core.cases import Item, Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.machine.fingerprint import Fingerprint
from pytest_rwkvperf.stats.estimates import estimate_rate
from pytest_rwkvperf.stats.levels import SessionTimes
from pytest_rwkvperf.stats.spread import PRIOR, Spread
from pytest_rwkvperf.stats.verdicts import ALPHA, StoredSessions, compare
from pytest_rwkvperf.store.baseline import Baseline, Noise, StoredCase
from pytest_rwkvperf.verdict.accept import stored_cases
from pytest_rwkvperf.verdict.judged import Judgement, Reference, from_json, junit_properties, to_json
from pytest_rwkvperf.verdict.judgement import invalid, judge, void
from pytest_rwkvperf.verdict.reasons import describe
from tests.unit.building import CASE, record_of, slower, throttled

HERE = Fingerprint("Linux", "x86_64", "AMD EPYC 9B14", "family 25 model 17 stepping 1", 2, 1)
THERE = replace(HERE, cores=8, cpu="Intel(R) Xeon(R)")
PREFILL = Workload("prefill", 512)
ITEM = Item(CASE, PREFILL)
TIMES = [[1_000_000, 1_010_000], [1_005_000], [1_002_000], [1_008_000], [1_004_000]]
RECORD = record_of(TIMES)


def stored(**changed: Any) -> StoredCase:  # noqa: ANN401 - fields of two classes
    """RECORD as it is stored; keywords change its session, or its model or device."""
    (case,) = stored_cases([RECORD], {CASE.key: {"pp512"}}, "then")
    outer = {name: changed.pop(name) for name in ("model_hash", "device") if name in changed}
    return replace(case, sessions=(replace(case.sessions[0], **changed),), **outer)


NOISE = Noise("then", 0.03, 20)
KNOWN = PRIOR.after(Spread(NOISE.spread**2, NOISE.freedom))
"""The spread that is known of these tests' machine."""


def against(*cases: StoredCase, noise: Noise | None = NOISE) -> Reference:
    baseline = Baseline(HERE, cases={case.case.key: case for case in cases}, noise={"prefill": noise} if noise else {})
    return Reference(HERE, baseline, None)


def fast(times: list[list[int]]) -> float:
    """The 5 % quantile of all repetitions."""
    return float(np.quantile(np.concatenate(times), 0.05))


# Against a baseline


@pytest.mark.parametrize(
    ("factor", "verdict", "reason"),
    [
        (2.0, "REGRESSION", "the ratio lies wholly below 0.800"),
        (1.0, "PASS", "the ratio lies wholly above 0.800"),
        (0.4, "IMPROVEMENT", "the ratio lies wholly above 1.250"),
        (
            1.25,
            "INCONCLUSIVE",
            (
                "the ratio's bounds hold 0.800: noise hides whether the tolerance was passed; not even 10 stored "
                "sessions would tell if they lay as far apart as is believed now: store more, which shows a quiet "
                "machine to be one, or take --rwkv-ab, or a wider --rwkv-tolerance"
            ),
        ),
    ],
)
def test_the_same_machine_and_case_are_compared(factor: float, verdict: str, reason: str) -> None:
    new = slower(RECORD, factor)
    judgement = judge(new, ITEM, against(stored()), 0.25, items=3)
    assert (judgement.verdict, judgement.reason) == (verdict, reason)
    sessions = StoredSessions([SessionTimes(TIMES)], belief=KNOWN)
    assert judgement.comparison == compare(SessionTimes(new.times(PREFILL)), sessions, 0.25, 3)
    assert judgement.new is not None
    assert judgement.old is not None
    assert judgement.old.median == pytest.approx(512 / fast(TIMES) * 1e9)
    assert judgement.new.median == pytest.approx(judgement.old.median / factor, rel=1e-5)
    assert (judgement.new.statistic, judgement.old.statistic) == ("fast", "fast")
    assert judgement.comparison.alpha == ALPHA / 3
    assert (judgement.item, judgement.tolerance, judgement.parity) == (ITEM, 0.25, new.parity)


def test_a_high_handover_latency_is_named() -> None:
    runs = tuple(replace(run, handovers={"pp512": (105_000,) * len(run.samples["pp512"])}) for run in RECORD.runs)
    old = stored(handovers={"pp512": tuple((70_000,) * len(row) for row in TIMES)})
    judgement = judge(replace(slower(RECORD, 50.0), runs=runs), ITEM, against(old), 0.25, items=1)
    assert judgement.verdict == "INCONCLUSIVE"
    assert judgement.reason.endswith(
        "; the threads handed work over in 105 microseconds, in the stored sessions in 70: the host placed the "
        "processors differently, which voids the bounds (run again, or take --rwkv-ab)"
    )


def test_without_an_a_a_run_the_prior_spread_is_assumed() -> None:
    assert against(stored(), noise=None).belief(PREFILL) == PRIOR
    assert against(stored()).belief(PREFILL) == KNOWN


def test_all_sessions_of_the_newest_software_count() -> None:
    older, newer = stored(versions={"llama-cpp": "0"}), stored()
    both = replace(newer, sessions=(*older.sessions, *newer.sessions, *newer.sessions))
    judgement = judge(RECORD, ITEM, against(both), 0.25, items=1)
    assert judgement.comparison == compare(
        SessionTimes(TIMES), StoredSessions([SessionTimes(TIMES)] * 2, [[SessionTimes(TIMES)]], KNOWN), 0.25, 1
    )
    assert judgement.old is not None
    assert judgement.old.processes == 2 * len(TIMES)


@pytest.mark.parametrize(
    "changed", [{"versions": {"llama-cpp": "9"}}, {"device": replace(RECORD.device, detail="another driver")}]
)
def test_other_software_or_another_driver_is_compared(changed: dict[str, Any]) -> None:
    assert judge(RECORD, ITEM, against(stored(**changed)), 0.25, items=1).verdict == "PASS"


def test_unusable_times_are_an_error() -> None:
    with pytest.raises(MeasurementError):
        judge(record_of([[1], [0]]), ITEM, against(stored()), 0.05, items=1)
    with pytest.raises(MeasurementError):
        judge(RECORD, Item(CASE, Workload("generation", 1)), against(stored()), 0.05, items=1)


# Nothing to compare with


MODEL = "model content (bbbbbbbbbbbb stored, aaaaaaaaaaaa here)"
PROTOCOL = "protocol (0 stored, 1 here)"
REPLACE = "--rwkv-save-baseline=replace stores it anew"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        (Reference(HERE, None, None), "no baseline is stored yet; --rwkv-save-baseline stores one"),
        (
            Reference(HERE, None, THERE),
            (
                "the stored machines differ from this one in cpu ('Intel(R) Xeon(R)' stored, 'AMD EPYC 9B14' here), "
                "cores (8 stored, 2 here); --rwkv-save-baseline stores this one's beside them"
            ),
        ),
        (
            Reference(HERE, None, replace(HERE, gpus=("NVIDIA H200", "NVIDIA H200"))),
            (
                "the stored machines differ from this one in gpus ('NVIDIA H200' and 'NVIDIA H200' stored, none here); "
                "--rwkv-save-baseline stores this one's beside them"
            ),
        ),
        (against(), f"this machine's baseline lacks the case {CASE.key!r}; --rwkv-save-baseline adds it"),
        (against(stored(model_hash="b" * 64)), f"the stored case differs in {MODEL}; {REPLACE}"),
        (
            against(stored(device=Device("cpu", "another", "cpu"))),
            f"the stored case differs in device (another stored, CPU here); {REPLACE}",
        ),
        (against(stored(protocol=0)), f"the stored case differs in {PROTOCOL}; {REPLACE}"),
        (
            against(stored(protocol=0, model_hash="b" * 64)),
            f"the stored case differs in {MODEL}, {PROTOCOL}; {REPLACE}",
        ),
        (
            against(stored(workloads={"tg128": ((1,),)})),
            "the stored case has no pp512; --rwkv-save-baseline adds it",
        ),
    ],
    ids=["nothing", "machine", "gpus", "case", "model", "device", "protocol", "two", "workload"],
)
def test_another_machine_or_case_is_not_compared_and_the_differences_are_named(
    reference: Reference, reason: str
) -> None:
    new = slower(RECORD, 100)
    judgement = judge(new, ITEM, reference, 0.05, items=1)
    assert (judgement.verdict, judgement.reason) == ("NO-BASELINE", reason)
    assert judgement.new == estimate_rate(new.times(PREFILL), 512)
    assert judgement.old is None
    assert judgement.comparison is None


# Descriptions


JUDGEMENTS = {
    "regression": judge(slower(RECORD, 2), ITEM, against(stored()), 0.05, items=12),
    "no baseline": judge(RECORD, ITEM, Reference(HERE, None, None), 0.05, items=12),
    "invalid": invalid(ITEM, 0.05, "a wrong answer"),
    "one process": judge(record_of(TIMES[:1]), ITEM, against(stored()), 0.05, items=12),
}


@pytest.mark.parametrize("name", JUDGEMENTS)
def test_a_judgement_survives_a_round_trip_through_json(name: str) -> None:
    assert from_json(to_json(JUDGEMENTS[name])) == JUDGEMENTS[name]


def test_one_process_is_judged_without_a_bound() -> None:
    judgement = JUDGEMENTS["one process"]
    assert judgement.verdict == "INCONCLUSIVE"
    assert judgement.comparison is not None
    assert judgement.comparison.high is None
    assert "bounds 0.000 to inf" in describe(judgement)
    assert describe(judgement).endswith("smallest slowdown found 19 times in 20: none")


def test_load_by_other_processes_is_named_with_advice() -> None:
    crowded = replace(RECORD, conditions=replace(RECORD.conditions, foreign=0.4))
    judgement = judge(crowded, ITEM, against(stored()), 0.25, items=1)
    assert judgement.reason == (
        "the ratio's bounds hold 0.800: noise hides whether the tolerance was passed; other processes took 40% of the "
        "processor, which widens the bounds, and beyond 10% voids them (measure or store again when it is idle, or "
        "take --rwkv-ab)"
    )


def test_the_busiest_stored_session_is_named() -> None:
    case = stored(foreign=0.05)
    busier = replace(case, sessions=(*case.sessions, replace(case.sessions[0], foreign=0.08)))
    assert "other processes took stored 8% of the processor" in judge(RECORD, ITEM, against(busier), 0.25, 1).reason


def test_junit_properties_are_the_figures() -> None:
    properties = dict(junit_properties(JUDGEMENTS["regression"]))
    assert properties["rwkv_ratio"] == "0.5"
    assert [name for name in properties if name.endswith("_high")] == [
        "rwkv_tokens_per_second_high",
        "rwkv_baseline_tokens_per_second_high",
        "rwkv_ratio_high",
    ]
    assert dict(junit_properties(JUDGEMENTS["one process"]))["rwkv_ratio_high"] == "inf"


def test_a_regression_is_described_with_its_figures() -> None:
    judgement = JUDGEMENTS["regression"]
    new, old, comparison = judgement.new, judgement.old, judgement.comparison
    assert new is not None
    assert old is not None
    assert comparison is not None
    assert describe(judgement).splitlines() == [
        f"-50 % ({old.median:.0f} → {new.median:.0f} t/s, limit 5 %) llama-cpp q8_0 pp512",
        "  REGRESSION: the ratio lies wholly below 0.952",
        f"  with   {judgement.software}",
        f"  since  {judgement.stored}",
        f"  new    {new.median:.2f} tokens/s, 95 % interval {new.low:.2f} to {new.high:.2f} (5 processes, 6 samples)",
        f"  old    {old.median:.2f} tokens/s, 95 % interval {old.low:.2f} to {old.high:.2f} (5 processes, 6 samples)",
        (
            "  ratio  0.500 (new / old, of the fast repetitions), "
            f"bounds {comparison.low:.3f} to {comparison.high:.3f}, wrong with a chance of 5.00% (lower) "
            "and 0.08% (upper); "
            f"tolerance 5.0%, exceeded with a probability of {comparison.probability_exceeded:.2%}; "
            f"smallest slowdown found 19 times in 20: {comparison.detectable:.1%}"
        ),
        "  why    nothing differs that was recorded: not the operators, the software, the settings nor the machine",
    ]


def test_an_invalid_item_is_described_by_its_reason() -> None:
    judgement = JUDGEMENTS["invalid"]
    assert judgement == Judgement(ITEM, "INVALID", "a wrong answer", 0.05)
    assert describe(judgement) == "INVALID llama-cpp q8_0 pp512\n  a wrong answer"


def test_no_verdict_rests_on_a_throttled_gpu() -> None:
    judgement = judge(throttled(slower(RECORD, 2.0), 0x40), ITEM, against(stored()), 0.25, items=3)
    assert (judgement.verdict, judgement.voided) == ("INCONCLUSIVE", "gpu")
    assert judgement.reason.startswith("NVIDIA H200 was throttled (hardware thermal slowdown) in 100% of the readings")
    assert judgement.comparison is not None
    assert judgement.comparison.verdict == "REGRESSION"


def test_terminal_sequences_in_stored_text_are_escaped() -> None:
    judgement = Judgement(ITEM, "NO-BASELINE", "the stored case differs in device (\x1b[2J stored)", 0.05)
    assert "\x1b" not in describe(judgement)
    assert "\\x1b[2J stored" in describe(judgement)


def test_an_uncompared_item_under_a_debugger_is_marked() -> None:
    judgement = Judgement(ITEM, "NO-BASELINE", "nothing is stored", 0.05)
    assert void(judgement, "watched", "measured under a debugger") == replace(judgement, voided="watched")
    assert void(judgement, "watched", "") == judgement
