"""Error rates and power of this project's verdicts, and of its peers' rules, on recorded sessions of unchanged code.

    python benchmarks/verdicts/verdicts.py            # of sessions.jsonl; writes verdicts.*
    python benchmarks/verdicts/verdicts.py --recording FOLDER/one_thread.jsonl    # another; writes one_thread.* here

Settings were chosen on recordings of another machine, of 23 and 24 November 2026: `one_thread.jsonl` with one thread,
`before.jsonl` with two, before handovers were timed, and `crowded.jsonl`, before that, while builds and tests ran
beside it. `sessions.jsonl` was recorded on 28 November with one thread, in the hours in which the project was worked
on: never beside other work of this machine, between it. Of its sessions the first half decided how large a spread is
held possible and that no chance within sessions is taken off; the second half decided nothing, but its rates had been
seen once, with the first half's, before that. A new session is one of the second half (`--all`: any).

A trial takes a session as the new run and k others as the baseline, all four items of each (m = 4). Slowdowns are put
in by multiplying the new times, all repetitions alike or every third alone (a tail). Trials share sessions, so the
bounds on rates are Clopper and Pearson's (Biometrika 26, 1934) on the number of sessions, not of trials: a session
counts as failed when any of its trials did.

Peers, each as its documentation says, on the same sessions and so with the same time spent: pytest-benchmark's
`--benchmark-compare-fail` with min:5% and mean:5%; asv's (Mann-Whitney p < .002 and a median 1.1 times as long);
benchstat's (Mann-Whitney p < .05, any difference of medians); criterion's (95 % bootstrap interval of the mean beyond
1 %); llama-bench's compare script, which shows the ratio of means (taken as an alarm beyond 5 %). They get the newest
baseline session, which is what they store.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from pytest_rwkvperf.stats.levels import SessionTimes, drop_slow_handovers, level, same_placement
from pytest_rwkvperf.stats.verdicts import MAX_CONTENTION, StoredSessions, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HERE = Path(__file__).parent
RECORDING = HERE / "sessions.jsonl"
TOLERANCE = 0.05
TOLERANCES = (0.05, 0.1, 0.15, 0.25)
BASELINES = (1, 3, 10)
SLOWDOWNS = (0.05, 0.1, 0.2, 0.4)
SPREADS_SIMULATED = (0.005, 0.01, 0.02)
ITEMS = 4
BOOTSTRAPS = 500
VERDICTS = ("REGRESSION", "PASS", "INCONCLUSIVE")

Rows = list[list[float]]
Session = dict[str, SessionTimes]


@dataclass(frozen=True, slots=True)
class Trial:
    """One new session against some old ones, by index."""

    new: int
    old: tuple[int, ...]


def load(path: Path) -> list[Session]:
    """Sessions by item; a probe is its process's median, as baselines store it."""
    sessions = []
    for line in path.read_text(encoding="utf-8").splitlines():
        cases = json.loads(line)["cases"]
        sessions.append(
            {
                f"{key.split(' | ')[0]} {workload}": SessionTimes(
                    rows,
                    [float(np.median(row)) for row in one["probes"][workload]],
                    one.get("foreign", 0.0),
                    one.get("handovers", {}).get(workload, ()),
                )
                for key, one in cases.items()
                for workload, rows in one["workloads"].items()
            }
        )
    return sessions


def slowed(timed: SessionTimes, slowdown: float, every: int = 1) -> SessionTimes:
    """The same with each `every`th repetition slower."""
    times = [[time * (1 + slowdown if i % every == 0 else 1.0) for i, time in enumerate(row)] for row in timed.times]
    return replace(timed, times=times)


def trials(count: int, tried: Sequence[int], sessions: int, most: int, seed: int) -> list[Trial]:
    """Random new sessions of those tried, and other old ones; with more asked than there are, old ones repeat."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(most):
        new = int(random.choice(tried))
        others = [one for one in range(sessions) if one != new]
        found.append(Trial(new, tuple(int(one) for one in random.choice(others, count, replace=count > len(others)))))
    return found


def ours(new: SessionTimes, old: Sequence[SessionTimes], items: int, tolerance: float) -> str:
    """This project's verdict."""
    return compare(new, StoredSessions(old), tolerance, items).verdict


def _flat(timed: SessionTimes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.concatenate([np.asarray(row, dtype=np.float64) for row in timed.times])


# Each rule as a score that grows with the evidence for a slowdown, and the value beyond which it alarms.


def _pytest_benchmark_min(new: SessionTimes, old: SessionTimes) -> float:
    return float(_flat(new).min() / _flat(old).min()) - 1


def _mean_ratio(new: SessionTimes, old: SessionTimes) -> float:
    return float(_flat(new).mean() / _flat(old).mean()) - 1


def _asv(new: SessionTimes, old: SessionTimes) -> float:
    p = stats.mannwhitneyu(_flat(new), _flat(old)).pvalue
    return float(np.median(_flat(new)) / np.median(_flat(old))) - 1 if p < 0.002 else -1.0  # noqa: PLR2004 - asv's


def _benchstat(new: SessionTimes, old: SessionTimes) -> float:
    p = float(stats.mannwhitneyu(_flat(new), _flat(old)).pvalue)
    slower = float(np.median(_flat(new))) > float(np.median(_flat(old)))
    return (1 - p) if slower else -1.0


def _criterion(new: SessionTimes, old: SessionTimes) -> float:
    random = np.random.default_rng(0)
    one, other = _flat(new), _flat(old)
    means = [np.mean(random.choice(one, one.size)) / np.mean(random.choice(other, other.size)) for _ in range(200)]
    return float(np.quantile(means, 0.025)) - 1


PEERS: dict[str, tuple[Callable[[SessionTimes, SessionTimes], float], float]] = {
    "pytest-benchmark min:5%": (_pytest_benchmark_min, 0.05),
    "pytest-benchmark mean:5%": (_mean_ratio, 0.05),
    "asv": (_asv, 0.1),
    "benchstat": (_benchstat, 0.95),
    "criterion": (_criterion, 0.01),
    "llama-bench compare, 5 %": (_mean_ratio, 0.05),
}


def our_score(new: SessionTimes, old: Sequence[SessionTimes], items: int) -> float:
    """How many of its own reaches the bound lies beyond the margin: what a swept error rate would sweep."""
    found = compare(new, StoredSessions(old), TOLERANCE, items)
    reach = math.log(found.high / found.ratio) if found.high is not None else 0.0
    return (-math.log1p(TOLERANCE) - math.log(found.ratio)) / reach if reach > 0 else 0.0


def judged(
    sessions: Sequence[Session],
    picked: Sequence[Trial],
    slowdown: float,
    every: int = 1,
    tolerance: float = TOLERANCE,
) -> list[list[str]]:
    """The verdicts on all items, by trial."""
    return [
        [
            ours(slowed(new, slowdown, every), [sessions[index][name] for index in trial.old], len(names), tolerance)
            for name, new in names.items()
        ]
        for trial, names in ((trial, sessions[trial.new]) for trial in picked)
    ]


def rates(picked: Sequence[Trial], found: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Shares over the trials: of runs with any REGRESSION, and of items by verdict, each with a 95 % interval.

    The interval is the percentile bootstrap's with the new session as the unit (Efron and Tibshirani, An Introduction
    to the Bootstrap, 1993, chapter 13): trials that share it are not independent.
    """
    shares = {"runs": [float("REGRESSION" in one) for one in found]}
    shares |= {name: [one.count(name) / len(one) for one in found] for name in VERDICTS}
    clusters = sorted({trial.new for trial in picked})
    members = [[index for index, trial in enumerate(picked) if trial.new == one] for one in clusters]
    random = np.random.default_rng(0)
    draws = [
        [index for cluster in random.integers(len(members), size=len(members)) for index in members[cluster]]
        for _ in range(BOOTSTRAPS)
    ]
    return {
        name: {
            "share": float(np.mean(row)),
            "interval": [
                float(one) for one in np.quantile([np.mean(np.take(row, draw)) for draw in draws], (0.025, 0.975))
            ],
        }
        for name, row in shares.items()
    }


def _of_the_last(score: Callable[[SessionTimes, SessionTimes], float]) -> Callable[..., float]:
    """A rule that knows one old session, for a list of them."""
    return lambda new, old: score(new, old[-1])


def peer_rates(
    sessions: Sequence[Session], picked: Sequence[Trial], slowdown: float
) -> Iterator[tuple[str, float, float, float, list[tuple[float, float]]]]:
    """By rule: share of runs that alarm on the same code, of items found slower, area under the ROC curve, and it."""
    for name, (score, limit) in PEERS.items():
        yield name, *_score_rates(sessions, picked, slowdown, _of_the_last(score), limit)
    items = len(sessions[0])
    yield "this project", *_score_rates(sessions, picked, slowdown, lambda new, old: our_score(new, old, items), 1.0)


def _score_rates(
    sessions: Sequence[Session],
    picked: Sequence[Trial],
    slowdown: float,
    score: Callable[[SessionTimes, list[SessionTimes]], float],
    limit: float,
) -> tuple[float, float, float, list[tuple[float, float]]]:
    same, slow, runs = [], [], 0
    for trial in picked:
        alarms = []
        for name, new in sessions[trial.new].items():
            old = [sessions[index][name] for index in trial.old]
            same.append(score(new, old))
            slow.append(score(slowed(new, slowdown), old))
            alarms.append(same[-1] > limit)
        runs += any(alarms)
    area = stats.mannwhitneyu(slow, same).statistic / (len(slow) * len(same))
    # One point for each of a hundred shares of false alarms, items of unchanged code that the swept limit calls slower.
    limits = np.quantile(same, np.linspace(1, 0, 101))
    curve = [(float(np.mean(np.array(same) > one)), float(np.mean(np.array(slow) > one))) for one in limits]
    return runs / len(picked), float(np.mean([one > limit for one in slow])), float(area), curve


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """What an item's times are made of: spreads of logarithms, and repetitions within a process.

    The spreads are of the machine between sessions, which times follow by a coefficient, of sessions beyond that, and
    of processes.
    """

    machine: float
    coefficient: float
    sessions: float
    processes: float
    probes: float
    """Of a process's probe around its session's."""
    repetitions: list[list[float]]
    """Of each process recorded: its times over their median."""

    def session(self, random: np.random.Generator, slowdown: float) -> SessionTimes:
        """Five processes of ten repetitions."""
        machine = random.normal(0, self.machine)
        level_of_session = self.coefficient * machine + random.normal(0, self.sessions) + math.log1p(slowdown)
        level_of_session += math.log(1e7)
        rows, probes = [], []
        for _ in range(5):
            probes.append(1e7 * math.exp(machine + random.normal(0, self.probes)))
            level_of_process = level_of_session + random.normal(0, self.processes)
            shape = self.repetitions[int(random.integers(len(self.repetitions)))]
            rows.append([math.exp(level_of_process) * float(one) for one in random.choice(shape, 10)])
        return SessionTimes(rows, probes)


def fitted(sessions: Sequence[SessionTimes]) -> Hierarchy:
    """The moments of recorded sessions, processes in the fast level; what processes add to sessions is taken out.

    Of sessions whose processors stood as the middle one's: the rule compares no others.
    """
    middle = sorted(sessions, key=lambda one: one.handover or 0)[len(sessions) // 2]
    near = [
        drop_slow_handovers(one) for one in sessions if same_placement(one, middle) and one.foreign <= MAX_CONTENTION
    ]
    levels = [level(one, "fast") for one in near]
    within = float(np.mean([np.var(one.processes, ddof=1) for one in levels if len(one.processes) > 1]))
    added = within * float(np.mean([1 / len(one.processes) for one in levels]))
    machine, times = (np.array(row) for row in ([one.probe or 0.0 for one in levels], [one.value for one in levels]))
    coefficient = float(np.clip(np.cov(machine, times)[0, 1] / np.var(machine, ddof=1), 0, 1))
    between = max(0.0, float(np.var(times - coefficient * machine, ddof=1)) - added)
    return Hierarchy(
        float(np.std(machine, ddof=1)),
        coefficient,
        math.sqrt(between),
        math.sqrt(within),
        float(np.sqrt(np.mean([np.var(one.probes) for one in levels]))),
        [[time / float(np.median(row)) for time in row] for one in near for row in one.times],
    )


def simulated(hierarchies: Sequence[Hierarchy], count: int, slowdown: float, runs: int) -> float:
    """Share of simulated whole runs (an item for each hierarchy) with any REGRESSION, or with a PASS when slowed."""
    random, found = np.random.default_rng(count), 0
    for _ in range(runs):
        verdicts = [
            ours(
                one.session(random, slowdown),
                [one.session(random, 0.0) for _ in range(count)],
                len(hierarchies),
                TOLERANCE,
            )
            for one in hierarchies
        ]
        found += ("PASS" if slowdown else "REGRESSION") in verdicts
    return found / runs


def beyond(failed: int, tried: int) -> float:
    """Clopper and Pearson's upper 95 % bound on a share."""
    return 1.0 if failed == tried else float(stats.beta.ppf(0.95, failed + 1, tried - failed))


def simulations(hierarchies: dict[str, Hierarchy], runs: int) -> dict[str, Any]:
    """Error rates where the machine is as fitted, and nothing but chance moves it."""
    rows = [
        {
            "baseline_sessions": count,
            "false_alarms": simulated(list(hierarchies.values()), count, 0.0, runs),
            "false_passes": simulated(list(hierarchies.values()), count, TOLERANCE, runs),
        }
        for count in BASELINES
    ]
    spreads = {name: [one.machine, one.coefficient, one.sessions, one.processes] for name, one in hierarchies.items()}
    return {"runs": runs, "spreads": spreads, "rows": rows}


def by_machine(runs: int) -> list[dict[str, Any]]:
    """Verdicts on machines whose sessions move by a known spread and nothing else, four items a run."""
    rows = []
    for spread in SPREADS_SIMULATED:
        machine = Hierarchy(0.0, 0.0, spread, 0.005, 0.0, [[1.0, 1.002, 1.005, 1.01, 1.03]])
        for count in BASELINES:
            random = np.random.default_rng(count)
            row: dict[str, Any] = {"spread": spread, "baseline_sessions": count, "runs": runs}
            for slowdown in (0.0, 0.1, 0.2):
                verdicts = [
                    [
                        ours(
                            replace(machine.session(random, slowdown), probes=()),
                            [replace(machine.session(random, 0.0), probes=()) for _ in range(count)],
                            ITEMS,
                            TOLERANCE,
                        )
                        for _ in range(ITEMS)
                    ]
                    for _ in range(runs)
                ]
                flat = [one for run in verdicts for one in run]
                row[f"{slowdown:g}"] = {
                    "runs": sum("REGRESSION" in run for run in verdicts) / runs,
                    **{name: flat.count(name) / len(flat) for name in VERDICTS},
                }
            rows.append(row)
    return rows


def measured(sessions: Sequence[Session], tried: Sequence[int], count: int, most: int) -> dict[str, Any]:
    """Everything about one number of baseline sessions."""
    picked = trials(count, tried, len(sessions), most, seed=count)
    found = {slowdown: judged(sessions, picked, slowdown) for slowdown in (0.0, *SLOWDOWNS)}
    failed = {trial.new for trial, one in zip(picked, found[0.0], strict=True) if "REGRESSION" in one}
    met = len({trial.new for trial in picked})
    return {
        "baseline_sessions": count,
        "false_alarms": {"sessions": len(failed), "of": met, "upper_95": beyond(len(failed), met)},
        "slowdowns": {f"{slowdown:g}": rates(picked, one) for slowdown, one in found.items()},
        "tail": rates(picked, judged(sessions, picked, 1.0, every=3)),
        "tolerances": {f"{one:g}": rates(picked, judged(sessions, picked, 0.0, tolerance=one)) for one in TOLERANCES},
        "by_item": {
            name: {
                f"{slowdown:g}": [one[index] for one in verdicts].count("REGRESSION") / len(verdicts)
                for slowdown, verdicts in found.items()
            }
            for index, name in enumerate(sessions[0])
        },
    }


CHOSEN = {
    "one_thread.jsonl": """Settings of the rule were chosen on these very sessions, so their rates flatter it; those of
new sessions that decided nothing are in [verdicts.md](verdicts.md).""",
    "sessions.jsonl": """Of all these sessions the first half decided how large a spread is held possible and that no
chance within sessions is taken off; the new ones, of the second half, decided nothing, but their rates had been seen
once before that.""",
}
"""What a recording had to do with the rule's settings."""

_HEAD = """# Verdicts on recorded sessions of unchanged code

Made by `verdicts.py` from `{recording}`, {sessions} sessions with {processes}
processes a case on {machine}, recorded from {first} to {last}, four items each
(llama-cpp f16 and rwkv fp32 on synthetic:nano, pp256 and tg64). New sessions are the last {tried} in order of time, old
ones any others; {trials} trials a row, tolerance 5 %. *Runs*: share of
whole runs with any REGRESSION; the other columns are shares of items; in brackets 95 % intervals, bootstrapped over the
sessions. By the product's own rule {crowded} of these sessions were too crowded for a verdict: nothing else ran in this
virtual machine, what its host did is not known.
{chosen}
How far apart the sessions lie, as the standard deviation of the logarithm of one figure a session; how far the fast
level follows the probe (correlation of the logarithms over the sessions); and what the probe leaves unexplained of a
session's slowness against another, root mean square over all pairs whose processors stood alike ({apart} of all pairs
did not):

| item | fast level (5 % quantile) | median | mean | follows the probe | unexplained |
|---|--:|--:|--:|--:|--:|
{spreads}

| baseline sessions | slowdown | runs | REGRESSION | PASS | INCONCLUSIVE |
|--:|---|--:|--:|--:|--:|"""


def table(result: dict[str, Any]) -> str:
    """The record as markdown."""
    spreads = "\n".join(
        f"| {name} | {' | '.join(f'{one:.1%}' for one in row[:3])} | {row[3]:.2f} | {row[4]:.1%} |"
        for name, row in result["spreads"].items()
    )
    chosen = f"\n{CHOSEN[result['recording']]}\n" if result["recording"] in CHOSEN else ""
    lines = _HEAD.format(**{**result, "spreads": spreads, "chosen": chosen}).splitlines()
    for one in result["ours"]:
        rows = {
            **{f"{float(s):.0%}": r for s, r in one["slowdowns"].items()},
            "a third of repetitions x 2": one["tail"],
        }
        for name, found in rows.items():
            cells = " | ".join(_share(found[key]) for key in ("runs", *VERDICTS))
            lines.append(f"| {one['baseline_sessions']} | {name} | {cells} |")
    lines += _item_lines(result["ours"])
    lines += _tolerance_lines(result["ours"])
    lines += [
        "",
        "Sessions falsely called a regression in any of their trials, with the upper 95 % bound on their share:",
        "",
    ]
    for one in result["ours"]:
        alarms = one["false_alarms"]
        lines.append(
            f"* {one['baseline_sessions']} baseline sessions: {alarms['sessions']} of {alarms['of']} "
            f"(at most {alarms['upper_95']:.0%})"
        )
    lines += _simulation_lines(result["simulation"])
    lines += _machine_lines(result["machines"])
    lines += [
        "",
        "Against peers' rules on the same data, one baseline session, a slowdown of 10 %:",
        "",
        "| rule | runs of unchanged code that alarm | items found | area under the ROC curve |",
        "|---|--:|--:|--:|",
    ]
    lines += [
        f"| {name} | {alarms:.0%} | {found:.0%} | {area:.3f} |" for name, alarms, found, area, _ in result["peers"]
    ]
    return "\n".join(lines) + "\n"


def _share(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['share']:.1%} ({low:.0%} to {high:.0%})"


def _item_lines(ours: Sequence[dict[str, Any]]) -> Iterator[str]:
    slowdowns = [one for one in ours[0]["slowdowns"] if float(one)]
    yield from (
        "",
        "Slowdowns found, by item:",
        "",
        f"| baseline sessions | item | {' | '.join(f'{float(one):.0%}' for one in slowdowns)} |",
        f"|--:|---|{'--:|' * len(slowdowns)}",
    )
    for one in ours:
        for name, found in one["by_item"].items():
            cells = " | ".join(f"{found[slowdown]:.0%}" for slowdown in slowdowns)
            yield f"| {one['baseline_sessions']} | {name} | {cells} |"


def _tolerance_lines(ours: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from (
        "",
        "Unchanged code by tolerance, as shares of items:",
        "",
        "| baseline sessions | tolerance | runs with a REGRESSION | PASS | INCONCLUSIVE |",
        "|--:|--:|--:|--:|--:|",
    )
    for one in ours:
        for tolerance, found in one["tolerances"].items():
            cells = " | ".join(_share(found[key]) for key in ("runs", "PASS", "INCONCLUSIVE"))
            yield f"| {one['baseline_sessions']} | {float(tolerance):.0%} | {cells} |"


def _simulation_lines(simulation: dict[str, Any]) -> Iterator[str]:
    yield from (
        "",
        f"Simulated from the hierarchy of the sessions that stood alike, {simulation['runs']} runs a row,",
        "five processes each. Its parts, as standard deviations of logarithms: how the machine moved between sessions",
        "by its probe, the coefficient by which times followed that, sessions beyond it, and processes.",
        "",
        "| item | machine | coefficient | sessions | processes |",
        "|---|--:|--:|--:|--:|",
        *(
            f"| {name} | {machine:.1%} | {coefficient:.2f} | {sessions:.1%} | {own:.1%} |"
            for name, (machine, coefficient, sessions, own) in simulation["spreads"].items()
        ),
        "",
        "| baseline sessions | runs of unchanged code with a REGRESSION | runs slower by the tolerance with a PASS |",
        "|--:|--:|--:|",
    )
    for row in simulation["rows"]:
        yield f"| {row['baseline_sessions']} | {row['false_alarms']:.1%} | {row['false_passes']:.1%} |"


def _machine_lines(machines: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from (
        "",
        f"On machines whose sessions move by a known spread, {machines[0]['runs']} simulated runs a row of four items,",
        "processes 0.5 % apart, no probes; *found* are slowdowns of 10 and 20 %:",
        "",
        "| sessions lie apart | stored | runs with a REGRESSION | PASS | INCONCLUSIVE | 10 % found | 20 % found |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    )
    for row in machines:
        same = row["0"]
        cells = [f"{row['spread']:.1%}", str(row["baseline_sessions"])]
        cells += [f"{same[name]:.1%}" for name in ("runs", "PASS", "INCONCLUSIVE")]
        cells += [f"{row[slowdown]['REGRESSION']:.1%}" for slowdown in ("0.1", "0.2")]
        yield f"| {' | '.join(cells)} |"


def facts(recording: Path, sessions: Sequence[Session]) -> dict[str, Any]:
    """What the sessions are, and how far apart they lie."""
    lines = [json.loads(line) for line in recording.read_text(encoding="utf-8").splitlines()]
    cases = [line["cases"] for line in lines]
    times = sorted(case["recorded"] for one in cases for case in one.values())
    counts = [sum(len(next(iter(one[key]["workloads"].values()))) for one in cases) for key in cases[0]]
    levels = (lambda row: np.quantile(row, 0.05), np.median, np.mean)
    pairs = [(one, other) for one in sessions for other in sessions if one is not other]
    apart = sum(not same_placement(one[name], other[name]) for one, other in pairs for name in sessions[0])
    return {
        "apart": f"{apart / len(pairs) / len(sessions[0]):.0%}",
        "sessions": len(sessions),
        "machine": lines[0]["fingerprint"],
        "processes": " and ".join(map(str, counts)),
        "first": times[0],
        "last": times[-1],
        "crowded": sum(any(timed.foreign > MAX_CONTENTION for timed in one.values()) for one in sessions),
        "spreads": {
            name: [
                *(float(np.std([math.log(figure(_flat(one[name]))) for one in sessions], ddof=1)) for figure in levels),
                *_followed(
                    [(one[name], other[name]) for one, other in pairs if same_placement(one[name], other[name])]
                ),
            ]
            for name in sessions[0]
        },
    }


def _followed(pairs: Sequence[tuple[SessionTimes, SessionTimes]]) -> tuple[float, float]:
    """The correlation of fast levels' differences with the probes', and the root mean square of what is unexplained."""
    found = [
        (level(drop_slow_handovers(one), "fast"), level(drop_slow_handovers(other), "fast")) for one, other in pairs
    ]
    times = np.array([one.value - other.value for one, other in found])
    probes = np.array([(one.probe or 0.0) - (other.probe or 0.0) for one, other in found])
    slower = np.maximum(times, 0) - np.maximum(probes, 0)
    return float(np.corrcoef(times, probes)[0, 1]), float(np.sqrt(np.mean(np.maximum(slower, 0) ** 2)))


def main() -> int:
    """Rates, as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--all", action="store_true", help="new sessions of both halves")
    parser.add_argument("--recording", type=Path, default=RECORDING)
    asked = parser.parse_args()
    sessions = load(asked.recording)
    tried = range(0 if asked.all else len(sessions) // 2, len(sessions))
    result = {
        **facts(asked.recording, sessions),
        "recording": asked.recording.name,
        "tried": len(tried),
        "trials": asked.trials,
        "ours": [measured(sessions, tried, count, asked.trials) for count in BASELINES],
        "simulation": simulations(
            {name: fitted([one[name] for one in sessions]) for name in sessions[0]}, asked.simulations
        ),
        "machines": by_machine(asked.simulations),
        "peers": list(peer_rates(sessions, trials(1, tried, len(sessions), asked.trials, seed=1), 0.1)),
    }
    name = "verdicts" if asked.recording == RECORDING else asked.recording.stem
    (HERE / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (HERE / f"{name}.md").write_text(table(result), encoding="utf-8")
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
