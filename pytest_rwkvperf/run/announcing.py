"""What a run prints before its first test: what will be measured and for how long, or why nothing is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.text import counted, duration, printable
from pytest_rwkvperf.machine import fingerprint, observers
from pytest_rwkvperf.measure.pairs import FEWEST_SAMPLES
from pytest_rwkvperf.measure.plan import MIN_PROCESSES
from pytest_rwkvperf.measure.sampling import MIN_SAMPLES
from pytest_rwkvperf.run import invariants
from pytest_rwkvperf.stats.paired import MIN_PAIRS

if TYPE_CHECKING:
    from pytest_rwkvperf.run.session import Session
    from pytest_rwkvperf.run.settings import Settings


@dataclass(frozen=True, slots=True)
class Collected:
    """What collection found, before options of pytest and of other plugins (-k, -m) deselected tests."""

    with_suite: bool
    """Whether the shipped suite is part of it."""
    asking: int
    """Tests that ask for rwkv_perf or rwkv_invariant, whatever the options leave of them."""
    measuring: int
    """Tests that measure, or use an engine."""
    others: int
    """Tests that do neither."""


COLLECTED: pytest.StashKey[Collected] = pytest.StashKey()
"""On the config, once collection has succeeded."""


def header(settings: Settings) -> str:
    """The line of pytest's header: backends, model, and what their figures are compared with."""
    other = "none (A/A)" if settings.aa else f"none ({settings.ab} in alternation)"
    stored = other if settings.ab else str(settings.baseline_dir)
    return printable(f"rwkvperf: backends {settings.backend}; model {settings.model}; baseline {stored}")


def announcement(config: pytest.Config, session: Session, left: int) -> list[str]:
    """What will be measured, for how long, and with which suite; `left`: tests with our fixtures that will run."""
    collected = config.stash.get(COLLECTED, None)
    if collected is None:  # pytest's own message, or a marker's mistake, follows
        return []
    lines = _others(session, collected)
    if not session.selected.cases:
        why = _why_nothing(config, session, collected, left)
        return [f"rwkvperf: {line}" for line in [*why, *lines]]
    return [f"rwkvperf: {line}" for line in [*_plan(session, collected), *_warnings(session), *lines]]


def _plan(session: Session, collected: Collected) -> list[str]:
    selected, settings = session.selected, session.settings
    suite = "the shipped suite" if collected.with_suite else "your own tests"
    counts = f"{counted(len(selected.cases), 'case')}, {counted(len(selected.planned), 'workload')}"
    if count := selected.comparisons - len(selected.items):
        counts += f", {counted(count, 'invariant')}"
    share = f"{duration(settings.budget_seconds / len(selected.cases))} a case"
    ab = f"{MIN_PAIRS} pairs of processes x {FEWEST_SAMPLES} samples"
    least = ab if settings.ab else f"{MIN_PROCESSES} processes x {MIN_SAMPLES} samples"
    minimum = f"at least {least} each, for which slow engines need longer"
    stored = f"against {settings.baseline_dir}" if selected.items else "against nothing stored"
    against = f"in alternation with {settings.ab}" if settings.ab else stored
    builds = session.builds()
    total = duration(settings.budget_seconds + sum(builds.values()))
    of_it = "".join(f"; up to {duration(seconds)} of it to build {names} for A/B" for names, seconds in builds.items())
    return [
        f"{settings.model}, {counts}, {suite} (--rwkv-suite={settings.suite})",
        f"about {total} ({share}; {minimum}{of_it}), {against}",
        f"chance that this run reports a regression of unchanged code: {settings.false_alarms:.2%}",
        f"chance that a workload slower than its tolerance passes: {settings.wrong_pass:.2%}",
        *session.plan(),
        *invariants.notes(session, selected.invariants),
    ]


def _warnings(session: Session) -> list[str]:
    """What makes the figures worse than they could be."""
    watchers, cores = " and ".join(observers.names()), fingerprint.physical_cores()
    lines = [f"under {watchers}, so no verdict will count (pytest-cov: --no-cov)"] if watchers else []
    most = max(case.threads for case in session.selected.cases)
    if most > cores:
        lines.append(
            f"--rwkv-threads={most} is more than the {cores} physical cores that this process may use: threads wait "
            "for each other, which is slower and varies more"
        )
    return lines


def _others(session: Session, collected: Collected) -> list[str]:
    if not collected.others:
        return []
    if session.settings.exclusive:
        return [f"deselected, since --rwkv-backend is given: tests that do not measure ({collected.others})"]
    why = "measuring is on by rwkv_backend in the ini file, so the other tests run too"
    return [f"{why}; --rwkv-backend on the command line leaves them out, an empty one measures nothing"]


def _why_nothing(config: pytest.Config, session: Session, collected: Collected, left: int) -> list[str]:
    """Why no item is measured: the first cause that explains it."""
    engines, suite = session.engines, session.settings.suite
    if engines.missing and not engines.found:
        skipped = [printable(engine.reason) for engine in engines.missing]
        return ["nothing to measure: none of the chosen engines can measure here", *skipped]
    if collected.measuring:
        deselected = f"every test that measures ({collected.measuring}) was deselected{_deselecting(config)}"
        judging = "the tests that are left ask for engines or models, and none for rwkv_perf or rwkv_invariant"
        why = judging if left else deselected
    elif collected.asking:
        named = "quants, workloads and engines that the markers and fixtures of your tests name"
        why = f"the options leave none of the {named} ({collected.asking} tests)"
    else:
        why = f"no test asks for rwkv_perf, and the shipped ones are left out (--rwkv-suite={suite})"
        why += "; --rwkv-suite=yes adds them"
    return [f"nothing to measure: {why}"]


def _deselecting(config: pytest.Config) -> str:
    """The options of pytest that deselect tests, as given."""
    option = config.option
    given = [
        *([f"-k {option.keyword!r}"] if option.keyword else []),
        *([f"-m {option.markexpr!r}"] if option.markexpr else []),
        *(f"--deselect={prefix}" for prefix in option.deselect or ()),
        *(["--last-failed"] if config.getoption("lf", default=False) else []),
    ]
    return f" ({', '.join(given)})" if given else ""
