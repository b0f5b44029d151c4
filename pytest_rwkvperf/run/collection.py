"""What the hooks do until tests run: check the options, parametrize, deselect, fix what each test asks."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.core.errors import OptionError, RwkvPerfError
from pytest_rwkvperf.run.fixtures import BACKENDS, FIXTURES, MEASURING, OFF, PROPERTY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_rwkvperf.core.cases import Item, Question
    from pytest_rwkvperf.core.invariants import InvariantQuestion
    from pytest_rwkvperf.run.discovery import MissingEngine
    from pytest_rwkvperf.run.progress import Progress
    from pytest_rwkvperf.run.selection import Request
    from pytest_rwkvperf.run.session import Session
    from pytest_rwkvperf.run.settings import Settings

UNWINDING_SECONDS = 30.0
"""A SIGTERM this soon after Ctrl-C is ignored. Ending workers and writing reports takes far less. After that we
assume that a test caught the KeyboardInterrupt."""

_MARKER = "rwkv"

_PARAMETER_SET = type(pytest.param())

_MISTAKES: pytest.StashKey[list[str]] = pytest.StashKey()
"""On the config: wrong markers and fixtures of tests, until collection ends. Raised earlier, they would be collection
errors and no usage error."""


@contextmanager
def usage_errors(config: pytest.Config) -> Iterator[None]:
    """Turn this project's errors into pytest's usage error: the message alone, exit code 4."""
    try:
        yield
    except RwkvPerfError as error:
        from pytest_rwkvperf.core.text import printable

        # It may quote a file, whose control characters must not reach the terminal.
        sentence = printable(str(error), keep="\n")
        # xdist does not pass a worker's exception on.
        getattr(config, "workeroutput", {})[PROPERTY] = sentence
        raise pytest.UsageError(sentence) from error


def unwind_on_sigterm(config: pytest.Config) -> None:
    """Until pytest is unconfigured, end the run at SIGTERM (a cancelled CI job) as at Ctrl-C: reports are written."""
    from pytest_rwkvperf.core.signals import first_signal_unwinds

    stack = ExitStack()
    stack.enter_context(
        first_signal_unwinds(lambda number: KeyboardInterrupt(f"ended by {number.name}"), UNWINDING_SECONDS)
    )
    config.add_cleanup(stack.close)


def check_outputs(config: pytest.Config, settings: Settings) -> None:
    """Refuse reports and a history that could not be written, in the process that writes them.

    Whether the history's database answers shows when there is a run to send.
    """
    if hasattr(config, "workerinput"):
        return
    with usage_errors(config):
        if settings.reports:
            from pytest_rwkvperf.reports import report_files

            report_files.check(settings.reports)
        if settings.history:
            from pytest_rwkvperf.history import address

            address.parse(settings.history, config.rootpath)


def progress(config: pytest.Config) -> Progress:
    """What shows this process's progress: on the terminal, or from an xdist worker through the run's folder."""
    from pytest_rwkvperf.run.folder import RunFolder
    from pytest_rwkvperf.run.progress import Progress
    from pytest_rwkvperf.run.xdist import shared_folder

    shared = shared_folder(config)
    return Progress(config, None if shared is None else RunFolder(shared).say)


def parametrize(metafunc: pytest.Metafunc, session: Session | None) -> None:
    """Give the fixtures that measure what they measure: `rwkv_perf` its items, `rwkv_invariant` the cases' invariants.

    A fixture with nothing to measure gets the single parameter None, with the id `off`.
    """
    for fixture, parameters_of in (("rwkv_perf", _items), ("rwkv_invariant", _invariants)):
        if fixture not in metafunc.fixturenames:
            continue
        found: dict[Any, str] = {}
        if session is not None:
            try:
                found = parameters_of(metafunc, session)
            except RwkvPerfError as error:
                _note_mistake(metafunc.config, f"{metafunc.definition.nodeid}: {error}")
        chosen = found or {None: "off"}
        metafunc.parametrize(fixture, [*chosen], ids=[*chosen.values()], indirect=True)


def _items(metafunc: pytest.Metafunc, session: Session) -> dict[Any, str]:
    """A test's items and missing engines with their ids; of markers on other parameters all that any of them asks for.

    Raises:
        RwkvPerfError: a marker is wrong, or an engine cannot be asked.
    """
    from pytest_rwkvperf.core.cases import Item, disambiguated
    from pytest_rwkvperf.run.selection import read_markers

    only, own = _required_backend(metafunc.fixturenames), [*metafunc.definition.iter_markers(_MARKER)]
    found = dict.fromkeys(
        parameter
        for marks in _parameters_marks(metafunc)
        for parameter in session.engines.items(read_markers([*marks, *own]), only)
    )
    shown = disambiguated(each.case for each in found if isinstance(each, Item))
    return {each: replace(each, case=shown[each.case]).id if isinstance(each, Item) else each.name for each in found}


def _invariants(metafunc: pytest.Metafunc, session: Session) -> dict[Any, str]:
    """The invariants of each case, and the missing engines, with their ids.

    Raises:
        RwkvPerfError: a marker is wrong, or an engine cannot be asked.
    """
    from pytest_rwkvperf.run import invariants
    from pytest_rwkvperf.run.selection import read_markers

    request = read_markers(metafunc.definition.iter_markers(_MARKER))
    found = invariants.parameters(session, request, _required_backend(metafunc.fixturenames))
    return dict(zip(found, invariants.ids(found), strict=True))


def _parameters_marks(metafunc: pytest.Metafunc) -> list[list[pytest.Mark]]:
    """This project's markers on each set of values that `parametrize` markers give; one empty list if there are none.

    Several `parametrize` markers make every combination, and so do the lists here.
    """
    combinations: list[list[pytest.Mark]] = [[]]
    for parametrized in metafunc.definition.iter_markers("parametrize"):
        values = parametrized.args[1] if len(parametrized.args) > 1 else parametrized.kwargs.get("argvalues", ())
        if not isinstance(values, (list, tuple)):
            continue  # pytest reads it once
        sets = [_own_marks(value.marks) if isinstance(value, _PARAMETER_SET) else [] for value in values]
        marked = [*filter(None, sets)]
        if marked:
            unmarked: list[list[pytest.Mark]] = [[]] if len(marked) < len(sets) else []
            combinations = [[*marks, *own] for marks in combinations for own in (*marked, *unmarked)]
    return combinations


def _own_marks(marks: Iterable[pytest.Mark | pytest.MarkDecorator]) -> list[pytest.Mark]:
    plain = (mark.mark if isinstance(mark, pytest.MarkDecorator) else mark for mark in marks)
    return [mark for mark in plain if mark.name == _MARKER]


def _request(item: pytest.Item) -> Request:
    """What the markers of a test ask for: those on its parameters before its own, its class's and its module's.

    Raises:
        OptionError: an argument is unknown or malformed.
    """
    from pytest_rwkvperf.run.selection import read_markers

    callspec = getattr(item, "callspec", None)
    on_parameters = _own_marks(callspec.marks) if callspec is not None else []
    return read_markers([*on_parameters, *item.iter_markers(_MARKER)])


def select_by_markers(session: Session, items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests of one function that the markers on their parameters ask for."""
    given = {_parameter(item) for item in items}
    kept = []
    for item in items:
        try:
            asked = _asked_by_parameters(session, item)
        except RwkvPerfError as error:
            _note_mistake(item.config, f"{item.nodeid}: {error}")
            continue
        if asked and given.isdisjoint(asked):
            _note_mistake(
                item.config,
                f"{item.nodeid}: the rwkv marker on a fixture's parameter comes too late for quant= and workload=; "
                "put it on the test or on a parameter of its parametrize",
            )
        if asked is None or _parameter(item) in asked:
            kept.append(item)
    return kept


def _asked_by_parameters(session: Session, item: pytest.Item) -> list[Item | MissingEngine] | None:
    """What a test may measure by its markers; None where none stands on a parameter, or it measures nothing.

    Raises:
        OptionError: an argument is unknown or malformed.
    """
    callspec = getattr(item, "callspec", None)
    if callspec is None or _parameter(item) is None or not _own_marks(callspec.marks):
        return None
    return session.engines.items(_request(item), _required_backend(_fixtures(item)))


def _note_mistake(config: pytest.Config, mistake: str) -> None:
    mistakes = config.stash.setdefault(_MISTAKES, [])
    if mistake not in mistakes:
        mistakes.append(mistake)


def _required_backend(names: Iterable[str]) -> str | None:
    """The backend that a test's fixtures restrict it to; None for all."""
    wanted = [backend for fixture, backend in BACKENDS.items() if fixture in names]
    if len(wanted) > 1:
        raise OptionError(f"a test may ask for one backend fixture, not for {' and '.join(wanted)}; split it")
    return wanted[0] if wanted else None


def _check_fixtures(item: pytest.Item) -> None:
    """Refuse a test whose fixtures cannot be what it means.

    Raises:
        OptionError: it asks for two backends, or for what is parametrized where nothing can be.
    """
    _required_backend(_fixtures(item))
    if (asked := _measuring_fixtures(item)) and not hasattr(item, "callspec"):
        raise OptionError(
            f"a unittest.TestCase cannot be parametrized, and {asked[0]} is; write a function or plain class"
        )


def arrange(pytest_session: pytest.Session, session: Session, items: list[pytest.Item]) -> None:
    """Deselect the tests that do not measure; add the shipped suite when it is wanted.

    Raises:
        OptionError: a test's marker or fixtures contradict each other.
    """
    from pytest_rwkvperf.run import pytest_benchmark, shipped_suite
    from pytest_rwkvperf.run.announcing import COLLECTED, Collected

    config = pytest_session.config
    users_measure = any(map(_measuring_fixtures, items))
    with_suite = shipped_suite.add(pytest_session, session, items, users_measure=users_measure)
    _raise_mistakes(config, items)
    selected = [item for item in items if _is_selected(item, session)]
    asking = [item for item in items if _measuring_fixtures(item)]
    others = [item for item in items if not is_ours(item)]
    config.stash[COLLECTED] = Collected(with_suite, len(asking), len(selected), len(others))
    kept = {*selected} if session.settings.exclusive else {*selected, *others}
    if dropped := [item for item in items if item not in kept]:
        config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item in kept]
    pytest_benchmark.show_fixture(config, selected)


def _raise_mistakes(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Raise every mistake of the tests' markers and fixtures at once.

    Raises:
        OptionError: there is one.
    """
    for item in items:
        try:
            _check_fixtures(item)
        except OptionError as error:  # noqa: PERF203 - every mistake is reported
            _note_mistake(config, f"{item.nodeid}: {error}")
    if mistakes := config.stash.get(_MISTAKES, []):
        raise OptionError("\n".join(mistakes))


def _fixtures(item: pytest.Item) -> tuple[str, ...]:
    return tuple(getattr(item, "fixturenames", ()))


def is_ours(item: pytest.Item) -> bool:
    """Whether a test asks for a fixture of ours."""
    return any(name in _fixtures(item) for name in FIXTURES)


def _is_selected(item: pytest.Item, session: Session) -> bool:
    """Whether a test is ours and its backend was selected."""
    names = _fixtures(item)
    if not is_ours(item):
        return False
    if (only := _required_backend(names)) is not None and only not in session.engines.chosen:
        return False
    return all(_parameter(item, fixture) is not None for fixture in _measuring_fixtures(item))


def _measuring_fixtures(item: pytest.Item) -> list[str]:
    """Which fixtures a test asks for that measure."""
    return [fixture for fixture in MEASURING if fixture in _fixtures(item)]


def _parameter(item: pytest.Item, fixture: str = "rwkv_perf") -> Any:  # noqa: ANN401 - as the fixture's, or None
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get(fixture)


def questions(session: Session, items: Iterable[pytest.Item]) -> dict[str, Question]:
    """What the tests that are left ask, by node id; a marker's tolerance goes before the option's."""
    from pytest_rwkvperf.core.cases import Item, Question

    asked: dict[str, Question] = {}
    for item in items:
        if isinstance(parameter := _parameter(item), Item):
            tolerance = _request(item).tolerance
            asked[item.nodeid] = Question(parameter, tolerance or session.settings.tolerance)
    return asked


def invariant_questions(session: Session, items: Iterable[pytest.Item]) -> dict[str, InvariantQuestion]:
    """What the tests that are left ask about invariants, by node id; tolerances as in `questions`."""
    from pytest_rwkvperf.core.invariants import InvariantQuestion

    asked: dict[str, InvariantQuestion] = {}
    for item in items:
        if isinstance(parameter := _parameter(item, "rwkv_invariant"), tuple):
            tolerance = _request(item).tolerance or session.settings.tolerance
            case, invariant = parameter
            asked[item.nodeid] = InvariantQuestion(case, invariant, tolerance)
    return asked


def idle_options(config: pytest.Config) -> list[str]:
    """Warn of options that do nothing while measuring is off: such a run would look like a success.

    Only of those on the command line itself: in `addopts` and the environment they may stand for other runs.
    """
    given = dict.fromkeys(
        argument.partition("=")[0] for argument in config.invocation_params.args if argument.startswith("--rwkv-")
    )
    if not given or "--rwkv-backend" in given:  # an empty --rwkv-backend turns measuring off on purpose
        return []
    return [f"rwkvperf: {', '.join(given)} {'does' if len(given) == 1 else 'do'} nothing: {OFF}"]
