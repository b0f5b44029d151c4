"""The shipped suite (`pytest_rwkvperf/suite/`) in a run: when it is added, and how a command line names its tests."""

from __future__ import annotations

from importlib import import_module
from os.path import normpath
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_rwkvperf.run.session import Session

_NAME = "rwkvperf"
"""The first part of its tests' ids, and a path below the rootdir that need not exist."""

_THROUGHPUT = "pytest_rwkvperf.suite.test_throughput"
_INVARIANTS = "pytest_rwkvperf.suite.test_invariants"

_NAMED: pytest.StashKey[list[str]] = pytest.StashKey()
"""On the config: the ids of the suite's tests that the command line names."""


def take_names(config: pytest.Config) -> None:
    """Take the ids of the suite's tests out of pytest's arguments, which it would look for as files.

    pytest's summary prints ids relative to the current folder, which may be another one than the rootdir.
    """
    here, suite = config.invocation_params.dir, config.rootpath / _NAME
    named: dict[str, str] = {}
    for argument in config.args:
        path, separator, rest = argument.partition("::")
        if not (here / path).exists() and (path == _NAME or normpath(here / path) == normpath(suite)):
            named[argument] = f"{_NAME}{separator}{rest}"
    if named:
        config.stash[_NAMED] = [*named.values()]
        config.args[:] = [argument for argument in config.args if argument not in named]


def add(pytest_session: pytest.Session, session: Session, items: list[pytest.Item], *, users_measure: bool) -> bool:
    """Add the suite's tests to the collected ones where they are wanted, and tell whether they are.

    `users_measure`: whether a test of the user's own asks for a fixture that measures.

    Raises:
        OptionError: the command line names a test that the suite does not have.
    """
    config, suite = pytest_session.config, session.settings.suite
    named = config.stash.get(_NAMED, [])
    auto = suite == "auto" and not users_measure and _may_add_unasked(config, session)
    if not (suite in ("yes", "invariants") or auto or named):
        return False
    tests = [*pytest_session.genitems(_module(pytest_session, _INVARIANTS if suite == "invariants" else _THROUGHPUT))]
    if unknown := [name for name in named if not any(_is_named(test, [name]) for test in tests)]:
        raise OptionError(f"{unknown[0]} is no test of the shipped suite with these options; --co lists them")
    items.extend(test for test in tests if not named or _is_named(test, named))
    return True


def _may_add_unasked(config: pytest.Config, session: Session) -> bool:
    """Whether the suite is added where no test of the user's own measures.

    Not to a run that names tests, and for which the ini file alone turned measuring on.
    """
    return session.settings.exclusive or config.args_source is not pytest.Config.ArgsSource.ARGS


def _is_named(item: pytest.Item, names: Iterable[str]) -> bool:
    """Whether a test, its function or its suite is named."""
    return any(item.nodeid == name or item.nodeid.startswith((f"{name}::", f"{name}[")) for name in names)


def _module(pytest_session: pytest.Session, name: str) -> pytest.Module:
    """A module of the suite, placed below the rootdir: conftest files that sort tests by folder expect that of all."""
    path = pytest_session.config.rootpath / _NAME
    module: pytest.Module = pytest.Module.from_parent(pytest_session, path=path, nodeid=_NAME)
    module.obj = import_module(name)
    return module
