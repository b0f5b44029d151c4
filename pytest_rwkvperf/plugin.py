"""pytest's hooks, in the order of a run, without logic of their own. Every pytest run imports this module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.run import collection, hookspecs, options, xdist
from pytest_rwkvperf.run.fixtures import (  # noqa: F401 - pytest finds fixtures in the plugin's namespace
    SESSION,
    gguf_model,
    llama_cpp,
    pth_model,
    rwkv_invariant,
    rwkv_perf,
    rwkv_pip,
    st_model,
    web_rwkv,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """The hooks that other plugins may implement."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and their ini twins."""
    options.declare(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the options; start a session when measuring is on."""
    config.addinivalue_line("markers", "rwkv(quant=[...], workload=[...], tolerance='3%'): what rwkv_perf measures")
    with collection.usage_errors(config):
        if not options.are_given(config):  # as in most runs of a pytest in which the plugin is installed
            return
        from pytest_rwkvperf.run.settings import read_settings

        settings = read_settings(config)
    if settings.measuring:
        collection.unwind_on_sigterm(config)
        collection.check_outputs(config, settings)
        from pytest_rwkvperf.run import finish
        from pytest_rwkvperf.run.session import Session

        with collection.usage_errors(config):
            config.stash[SESSION] = Session(settings, collection.progress(config), xdist.shared_folder(config))
        finish.gather(config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the backends, the model, and the baseline."""
    session = config.stash.get(SESSION, None)
    if session is None:
        return []
    from pytest_rwkvperf.run.announcing import header

    return [header(session.settings)]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: xdist.XdistNode) -> None:
    """Tell an xdist worker where the run's records are."""
    if (session := node.config.stash.get(SESSION, None)) is not None:
        xdist.share_folder(node, session)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: xdist.XdistNode) -> None:
    """Make an xdist worker's usage error the run's."""
    xdist.relay_usage_error(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:  # noqa: ANN401 - xdist is optional
    """Under `-n`, measure several devices at the same time."""
    session = config.stash.get(SESSION, None)
    return None if session is None else xdist.scheduler(config, log, session)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Ask the engines before collecting, so that a wrong option is a usage error."""
    config = session.config
    if SESSION in config.stash and not config.pluginmanager.hasplugin("dsession"):
        from pytest_rwkvperf.run import shipped_suite

        shipped_suite.take_names(config)
        with collection.usage_errors(config):
            config.stash[SESSION].prepare()


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class) -> Generator[None, Any, Any]:
    """Drop the tests that the markers on their other parameters do not select."""
    made = yield
    session = collector.config.stash.get(SESSION, None)
    return made if session is None or not isinstance(made, list) else collection.select_by_markers(session, made)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize `rwkv_perf` over its items, `rwkv_invariant` over the cases' invariants."""
    collection.parametrize(metafunc, metafunc.config.stash.get(SESSION, None))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """While measuring: add the shipped suite, deselect tests that do not measure."""
    pytest_session = session
    if SESSION in config.stash:
        with collection.usage_errors(config):
            collection.arrange(pytest_session, config.stash[SESSION], items)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Fix what is measured: no test is added or deselected any more."""
    pytest_session, config = session, session.config
    if SESSION in config.stash:
        from pytest_rwkvperf.run import pytest_benchmark

        pytest_benchmark.hide_fixture(config)
        with collection.usage_errors(config):
            measuring, items = config.stash[SESSION], pytest_session.items
            measuring.select(collection.questions(measuring, items), collection.invariant_questions(measuring, items))


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    """Announce what will be measured and for how long, or why nothing is."""
    if (session := config.stash.get(SESSION, None)) is None:
        return collection.idle_options(config)
    from pytest_rwkvperf.run.announcing import announcement

    return announcement(config, session, sum(map(collection.is_ours, items)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach a test's verdicts to its report, which xdist sends to the controller."""
    report = yield
    if SESSION in item.config.stash:
        from pytest_rwkvperf.run import finish

        finish.attach(item, report)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Save and report, if the options ask for it; exit 5 when nothing was measured."""
    pytest_session, config = session, session.config
    if SESSION in config.stash and not hasattr(config, "workerinput"):
        from pytest_rwkvperf.run import finish

        config.stash[finish.RESULT] = finish.finish(pytest_session, config.stash[SESSION])


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The tables, below those of other plugins, and one sentence for what to do next."""
    if (session := config.stash.get(SESSION, None)) is not None:
        from pytest_rwkvperf.run import finish, terminal

        if (result := config.stash.get(finish.RESULT, None)) is not None:
            terminal.write(terminalreporter, result, session.settings)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the session, which removes the run's folder."""
    if (session := config.stash.get(SESSION, None)) is not None:
        session.close()
