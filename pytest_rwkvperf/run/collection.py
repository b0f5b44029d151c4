"""What the hooks do: parametrizing, deselecting, adding the shipped suite, gathering verdicts, finishing."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.core.errors import OptionError, RwkvPerfError, StorageError
from pytest_rwkvperf.run.fixtures import BACKENDS, FIXTURES, OFF, PROPERTY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_rwkvperf.core.cases import Item
    from pytest_rwkvperf.run.discovery import Missing
    from pytest_rwkvperf.run.options import Settings
    from pytest_rwkvperf.run.session import Session

XdistNode = Any
"""xdist's WorkerController; typed loosely because xdist is optional."""

UNWINDING_SECONDS = 30.0
"""A SIGTERM this soon after Ctrl-C is ignored. Ending workers and writing reports takes far less. Later the interrupt
must have been caught by a test."""

_ASKING = ("--rwkv-save-baseline", "--rwkv-ab", "--rwkv-aa")
"""Options that ask for a measurement of their own; the others tell how any is made, and may wait in `addopts`."""

SUITE = Path(__file__).parent.parent / "suite" / "test_throughput.py"


@contextmanager
def usage_errors(config: pytest.Config) -> Iterator[None]:
    """Turn this project's errors into pytest's usage error: the message alone, exit code 4."""
    try:
        yield
    except RwkvPerfError as error:
        from pytest_rwkvperf.core.text import printable

        # It may quote a file, whose text no terminal should obey.
        sentence = printable(str(error), keep="\n")
        # In an xdist worker the exception itself goes nowhere.
        getattr(config, "workeroutput", {})[PROPERTY] = sentence
        raise pytest.UsageError(sentence) from error


def unwind_on_sigterm(config: pytest.Config) -> None:
    """End the run at SIGTERM, which a cancelled CI job gets, as Ctrl-C does: with reports, leaving no temporary folder.

    Until pytest is unconfigured.
    """
    from pytest_rwkvperf.core.signals import first_signal_unwinds

    stack = ExitStack()
    stack.enter_context(first_signal_unwinds(KeyboardInterrupt("ended by SIGTERM"), UNWINDING_SECONDS))
    config.add_cleanup(stack.close)


def check_reports(config: pytest.Config, settings: Settings) -> None:
    """Refuse reports that could not be written; the process that writes them asks."""
    if settings.reports and not hasattr(config, "workerinput"):
        from pytest_rwkvperf.reports import report_files

        with usage_errors(config):
            report_files.check(settings.reports)


def check_history(config: pytest.Config, settings: Settings) -> None:
    """Refuse an address that no run could be stored at; whether it answers shows when there is something to send."""
    if settings.history and not hasattr(config, "workerinput"):
        from pytest_rwkvperf.history import address

        with usage_errors(config):
            address.parse(settings.history, config.rootpath)


def relay_usage_error(node: XdistNode) -> None:
    """Raise what an xdist worker found, in the controller.

    Raises:
        UsageError: there is something.
    """
    if message := getattr(node, "workeroutput", {}).get(PROPERTY):
        raise pytest.UsageError(message)


def shared_folder(config: pytest.Config) -> Path | None:
    """The run's folder as the xdist controller made it; None outside an xdist worker."""
    folder = getattr(config, "workerinput", {}).get(PROPERTY)
    return None if folder is None else Path(folder)


def share_folder(node: XdistNode, session: Session) -> None:
    """Tell an xdist worker about the run's folder."""
    node.workerinput[PROPERTY] = str(session.folder)


def parametrize(metafunc: pytest.Metafunc, session: Session | None) -> None:
    """Give `rwkv_perf` its items.

    A marker's mistake is kept until collection ends: raised here it would be a collection error, no usage error.
    """
    parameters: list[Any] = [None]
    if session is not None:
        from pytest_rwkvperf.run.selection import read_marker

        try:
            request = read_marker(metafunc.definition.get_closest_marker("rwkv"))
            parameters = session.items(request, _only(metafunc.fixturenames)) or [None]
        except RwkvPerfError as error:
            session.problems.append(f"{metafunc.definition.nodeid}: {error}")
    ids = ["off"] if parameters == [None] else _ids(parameters)
    metafunc.parametrize("rwkv_perf", parameters, ids=ids, indirect=True)


def _ids(parameters: Sequence[Item | Missing]) -> list[str]:
    """What a test's items and its missing engines are called."""
    from pytest_rwkvperf.core.cases import Item, told_apart

    shown = told_apart(one.case for one in parameters if isinstance(one, Item))
    return [replace(one, case=shown[one.case]).id if isinstance(one, Item) else one.name for one in parameters]


def _only(names: Iterable[str]) -> str | None:
    """The one backend that a test's fixtures restrict it to."""
    wanted = [backend for fixture, backend in BACKENDS.items() if fixture in names]
    if len(wanted) > 1:
        raise OptionError(f"a test may ask for one backend fixture, not for {' and '.join(wanted)}; split it")
    return wanted[0] if wanted else None


def arrange(pytest_session: pytest.Session, session: Session, items: list[pytest.Item]) -> None:
    """Keep what measures, add the shipped suite when it is wanted.

    Raises:
        OptionError: a test's marker or fixtures contradict each other.
    """
    users_own = any("rwkv_perf" in _fixtures(item) for item in items)
    session.suite = session.settings.suite == "yes" or (session.settings.suite == "auto" and not users_own)
    if session.suite:
        module = pytest.Module.from_parent(pytest_session, path=SUITE, nodeid="rwkvperf")
        items.extend(pytest_session.genitems(module))
    for item in items:
        _check_fixtures(item, session)
    if session.problems:
        raise OptionError("\n".join(session.problems))
    kept = [item for item in items if _measures(item, session)]
    dropped = [item for item in items if item not in set(kept)]
    if dropped:
        pytest_session.config.hook.pytest_deselected(items=dropped)
    items[:] = kept


def _fixtures(item: pytest.Item) -> tuple[str, ...]:
    return tuple(getattr(item, "fixturenames", ()))


def _check_fixtures(item: pytest.Item, session: Session) -> None:
    try:
        _only(_fixtures(item))
    except OptionError as error:
        problem = f"{item.nodeid}: {error}"
        if problem not in session.problems:
            session.problems.append(problem)


def _measures(item: pytest.Item, session: Session) -> bool:
    """Whether a test is ours and its backend was selected."""
    names = _fixtures(item)
    if not any(name in names for name in FIXTURES):
        return False
    if (only := _only(names)) is not None and not session.is_chosen(only):
        return False
    return "rwkv_perf" not in names or _parameter(item) is not None


def _parameter(item: pytest.Item) -> Any:  # noqa: ANN401 - an Item, a Missing or None
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("rwkv_perf")


def selected(items: Iterable[pytest.Item]) -> list[tuple[str, Item, float | None]]:
    """The items to measure among the tests that are left, with node ids and the tolerance that a marker asks for."""
    from pytest_rwkvperf.core.cases import Item
    from pytest_rwkvperf.run.selection import read_marker

    parameters = ((item.nodeid, _parameter(item), item.get_closest_marker("rwkv")) for item in items)
    return [
        (nodeid, parameter, read_marker(marker).tolerance)
        for nodeid, parameter, marker in parameters
        if isinstance(parameter, Item)
    ]


def scheduler(config: pytest.Config, log: Any, session: Session) -> Any:  # noqa: ANN401 - xdist is optional
    """What gives tests to xdist's workers: None for xdist's own, else one that knows of several devices."""
    if config.getvalue("dist") != "load" or not session.settings.spreads:
        return None
    from pytest_rwkvperf.run.xdist import DeviceScheduling

    return DeviceScheduling(config, log, session.folder)


def announcement(session: Session) -> list[str]:
    """What will be measured and for how long, and which suite was chosen."""
    from pytest_rwkvperf.machine.observers import watching
    from pytest_rwkvperf.measure.plan import MIN_PROCESSES
    from pytest_rwkvperf.measure.process import MIN_SAMPLES
    from pytest_rwkvperf.stats.paired import MIN_PAIRS
    from pytest_rwkvperf.stats.verdicts import ALPHA

    cases = {item.case for item in session.selected}
    if not cases:
        why = "no selected test asks for rwkv_perf within what the options name"
        return [f"rwkvperf: nothing to measure: {why}; --rwkv-suite=yes adds the shipped ones"]
    settings = session.settings
    suite = "the shipped suite" if session.suite else "your own tests"
    counts = f"{len(cases)} cases, {len(session.selected)} workloads"
    share = f"{settings.budget_seconds / len(cases):.0f} s a case"
    least = f"{MIN_PAIRS} pairs of" if settings.ab else f"{MIN_PROCESSES}"
    minimum = f"at least {least} processes x {MIN_SAMPLES} samples each, for which slow engines need longer"
    against = f"in alternation with {settings.ab}" if settings.ab else f"against {settings.baseline_dir}"
    watchers = " and ".join(watching())
    return [
        f"rwkvperf: {settings.model}, {counts}, {suite} (--rwkv-suite={settings.suite})",
        f"rwkvperf: about {settings.budget_seconds / 60:.1f} min ({share}; {minimum}), {against}",
        f"rwkvperf: chance that unchanged code is called a regression anywhere in this run: {ALPHA:.0%}",
        *([f"rwkvperf: under {watchers}, so no verdict will count (pytest-cov: --no-cov)"] if watchers else []),
    ]


def idle_options(config: pytest.Config) -> list[str]:
    """A word on what was asked for while measuring is off: a run that saved and compared nothing looks like success."""
    asked = [flag for flag in _ASKING if config.getoption(flag) not in (None, "", "no")]
    return [f"rwkvperf: {asked[0]} does nothing: {OFF}"] if asked else []


class Gatherer:
    """Collects the verdicts in the process that prints the summary. Registered while measuring is on."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._told: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Every report passes here, an xdist worker's too.

        A verdict stays the text that the report holds anyway: a run may have hundreds, and needs none before its end.
        """
        if report.when == "call":
            self._told += [str(value) for name, value in report.user_properties if name == PROPERTY]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Read what was told, before the plugin's own hook saves and reports.

        Of several verdicts on one item the one with the least tolerance counts, which is a REGRESSION where any is; of
        two as strict, a test's that was run again, the later.
        """
        from pytest_rwkvperf.verdict.judged import from_json

        known = self._session.judgements
        for one in map(from_json, self._told):
            if one.item not in known or one.tolerance <= known[one.item].tolerance:
                known[one.item] = one


def finish(pytest_session: pytest.Session, session: Session) -> None:
    """Save the baseline where asked; exit 5 when nothing was measured, 1 when it cannot be saved."""
    try:
        if session.settings.save != "no" and session.judgements:
            session.saved = session.save()
        if session.settings.aa and session.judgements:
            session.keep_noise()
    except RwkvPerfError as error:
        session.trouble = str(error) if isinstance(error, StorageError) else f"not saved: {error}"
        _mark_failed(pytest_session)
    except KeyboardInterrupt:  # from here it would cost the tables and the reports
        session.trouble = "interrupted while saving: the baseline is as it was, or has all of this run"
        pytest_session.exitstatus = pytest.ExitCode.INTERRUPTED
    _mark_empty(pytest_session, session)
    _leave(pytest_session, session)


def _mark_failed(pytest_session: pytest.Session) -> None:
    """Exit 1, unless the run ends with more than that: an interrupt stays one, and nothing measured stays nothing."""
    if pytest_session.exitstatus == pytest.ExitCode.OK:
        pytest_session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _mark_empty(pytest_session: pytest.Session, session: Session) -> None:
    if pytest_session.exitstatus != pytest.ExitCode.OK or pytest_session.config.option.collectonly:
        return
    # Measured is what has a record, judged or not: a test may call measure() alone.
    if not any(session.folder.glob("*.[jp]*")):
        pytest_session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def _leave(pytest_session: pytest.Session, session: Session) -> None:
    """Reports and history, with what there is, however the run ended; not after a mistake in the options."""
    settings, config = session.settings, pytest_session.config
    if config.option.collectonly or pytest_session.exitstatus == pytest.ExitCode.USAGE_ERROR:
        return
    from pytest_rwkvperf.reports import github

    on_github = github.is_active(os.environ)
    if not settings.reports and not settings.history and not on_github:
        return
    from pytest_rwkvperf.reports import report_files
    from pytest_rwkvperf.run import recording

    record = recording.of_run(pytest_session, session)
    session.written, troubles = report_files.write_all(record, settings.reports, settings.report_language)
    if settings.history and any(case.measured for case in record.cases):
        from pytest_rwkvperf.history import address, spool

        try:
            session.remembered = spool.store(record, address.parse(settings.history, config.rootpath))
        except RwkvPerfError as error:
            troubles.append(str(error))
    if troubles:
        _mark_failed(pytest_session)
    if on_github:
        troubles += filter(None, [github.add_summary(record, os.environ)])
        session.say.command(github.errors_of(record))
    session.trouble = "\n".join(filter(None, [session.trouble, *troubles]))
