"""The end of a run: gather the verdicts, save, write the reports, and send the run to its history."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.errors import RwkvPerfError, StorageError
from pytest_rwkvperf.history import address, spool
from pytest_rwkvperf.reports import github, report_files
from pytest_rwkvperf.run import hooks, recording, saving
from pytest_rwkvperf.run.fixtures import INVARIANT_PROPERTY, PROPERTY, VERDICTS
from pytest_rwkvperf.run.result import RunResult
from pytest_rwkvperf.verdict import invariants
from pytest_rwkvperf.verdict.judged import from_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_rwkvperf.core.cases import Item
    from pytest_rwkvperf.run.session import Session
    from pytest_rwkvperf.store.record import Record
    from pytest_rwkvperf.verdict.invariants import JudgedInvariant
    from pytest_rwkvperf.verdict.judged import Judgement

RESULT: pytest.StashKey[RunResult] = pytest.StashKey()
"""On the config, from the end of a measuring run, in the process that prints the summary."""


class Gatherer:
    """A pytest plugin that collects the verdicts from the tests' reports, those of xdist's workers too.

    `tell` is given each test's id and verdict, and returns a sentence about what went wrong, or an empty text.
    """

    def __init__(self, tell: Callable[[str, str], str]) -> None:
        self._tell = tell
        self._verdicts: list[str] = []
        self._invariants: list[str] = []
        self._troubles: list[str] = []

    @property
    def troubles(self) -> tuple[str, ...]:
        """What other plugins raised when they were told of a verdict, in sentences."""
        return tuple(dict.fromkeys(filter(None, self._troubles)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the verdict as the text that it is: a run may have hundreds, and they are needed at its end."""
        verdicts = vars(report).get(PROPERTY, [])
        self._verdicts += verdicts
        self._troubles += [self._tell(report.nodeid, text) for text in verdicts]
        self._invariants += vars(report).get(INVARIANT_PROPERTY, [])

    def invariants(self) -> list[JudgedInvariant]:
        """The verdict on each invariant that was judged; the last one where a test was run again."""
        judged = map(invariants.from_json, self._invariants)
        return [*{(each.question.case, each.question.invariant): each for each in judged}.values()]

    def judgements(self) -> dict[Item, Judgement]:
        """The verdict on each item.

        Of several on one item, the one with the least tolerance counts, which is a REGRESSION where any is; of those
        with the same tolerance (a test was run again) the last.
        """
        judgements: dict[Item, Judgement] = {}
        for judged in map(from_json, self._verdicts):
            if judged.item not in judgements or judged.tolerance <= judgements[judged.item].tolerance:
                judgements[judged.item] = judged
        return judgements


def attach(item: pytest.Item, report: pytest.TestReport) -> None:
    """Give a test's verdicts to its report: xdist sends the report to its controller, and JUnit does not show it."""
    if (verdicts := item.stash.get(VERDICTS, None)) is not None:
        vars(report).update(verdicts)
        del item.stash[VERDICTS]  # the test may be run again


_GATHERER: pytest.StashKey[Gatherer] = pytest.StashKey()


def gather(config: pytest.Config) -> None:
    """Collect the verdicts from now on, and tell other plugins of them: under xdist in its controller."""
    tell = (lambda _nodeid, _verdict: "") if hasattr(config, "workerinput") else partial(hooks.tell_verdict, config)
    config.stash[_GATHERER] = gatherer = Gatherer(tell)
    config.pluginmanager.register(gatherer, "rwkvperf-gatherer")


def finish(pytest_session: pytest.Session, session: Session) -> RunResult:
    """Save and report what there is, however the run ended, and set the exit status."""
    session.relay.stop()
    gatherer = pytest_session.config.stash[_GATHERER]
    judgements = gatherer.judgements()
    result = replace(_saved(pytest_session, session, judgements), waited_seconds=session.folder.waited())
    collects_only = pytest_session.config.option.collectonly
    if not collects_only:
        _fail_without_figures(pytest_session, session)
    if collects_only or pytest_session.exitstatus == pytest.ExitCode.USAGE_ERROR:
        return result
    record = recording.of_run(pytest_session, session, judgements, gatherer.invariants())
    result = _published(pytest_session, session, record, replace(result, record=record))
    troubles = _told(pytest_session, session, record, gatherer)
    return replace(result, troubles=(*result.troubles, *troubles))


def _fail_without_figures(pytest_session: pytest.Session, session: Session) -> None:
    """Set exit code 5 if a run that was to measure measured nothing, and nothing else failed."""
    succeeded = pytest_session.exitstatus == pytest.ExitCode.OK
    # A case counts as measured when it has a record, judged or not: a test may call measure() alone.
    if succeeded and session.settings.exclusive and not session.folder.anything_measured():
        pytest_session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def _saved(pytest_session: pytest.Session, session: Session, judgements: Mapping[Item, Judgement]) -> RunResult:
    """Store the figures, or in A/A the noise, as the baseline where that was asked for."""
    result, settings = RunResult(), session.settings
    if not judgements:
        return result
    try:
        if settings.save != "no":
            return replace(result, saved=saving.save(settings, session.folder, judgements.values()))
        if settings.aa and not session.observed:
            return replace(result, noise=saving.keep_noise(settings, session.folder))
    except Exception as error:  # noqa: BLE001 - no fault may cost the tables and the reports
        _mark_failed(pytest_session)
        reason = str(error) if isinstance(error, RwkvPerfError) else _fault(error)
        trouble = reason if isinstance(error, StorageError) else f"not saved: {reason}"
        return replace(result, troubles=(trouble,), save_failed=True)
    except KeyboardInterrupt:  # from here on it would cost the tables and the reports
        pytest_session.exitstatus = pytest.ExitCode.INTERRUPTED
        sentence = "interrupted while saving: the baseline is as it was, or has all of this run"
        return replace(result, troubles=(sentence,), save_failed=True)
    return result


def _published(pytest_session: pytest.Session, session: Session, record: Record, result: RunResult) -> RunResult:
    """Write the reports and send the run to its history, where that was asked for."""
    settings = session.settings
    written = report_files.write_all(record, settings.reports, settings.report_language)
    troubles = [*written.failures]
    history: tuple[str, ...] = ()
    if settings.history and any(case.measured for case in record.cases):
        try:
            history = spool.store(record, address.parse(settings.history, pytest_session.config.rootpath))
        except RwkvPerfError as error:
            troubles.append(str(error))
        except Exception as error:  # noqa: BLE001 - no fault may cost the tables
            troubles.append(f"not stored in the history: {_fault(error)}")
    if troubles:
        _mark_failed(pytest_session)
    return replace(
        result,
        reports=written.files,
        advice=written.advice,
        history=history,
        troubles=(*result.troubles, *troubles),
    )


def _told(pytest_session: pytest.Session, session: Session, record: Record, gatherer: Gatherer) -> tuple[str, ...]:
    """Tell other plugins and GitHub's page of the record; returns what went wrong, in sentences.

    What another plugin raised makes the run fail, a missing summary on GitHub's page does not.
    """
    troubles = [*gatherer.troubles, *filter(None, [hooks.tell_record(pytest_session.config, record)])]
    if troubles:
        _mark_failed(pytest_session)
    if github.is_active(os.environ):
        troubles += filter(None, [github.add_summary(record, os.environ)])
        session.progress.command(github.errors_of(record))
    return tuple(troubles)


def _fault(error: Exception) -> str:
    """An error that nothing foresaw, as a sentence."""
    return f"{type(error).__name__}: {error}; please report this, with the run's record (--rwkv-report=run.json)"


def _mark_failed(pytest_session: pytest.Session) -> None:
    """Set exit code 1 unless another non-zero code is set."""
    if pytest_session.exitstatus == pytest.ExitCode.OK:
        pytest_session.exitstatus = pytest.ExitCode.TESTS_FAILED
