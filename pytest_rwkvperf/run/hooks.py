"""Calls of the hooks in `hookspecs`: an exception in another plugin must not lose figures or reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.run import verdicts
from pytest_rwkvperf.run.fixtures import SESSION
from pytest_rwkvperf.verdict.judged import from_json, recorded_item

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.store.record import Record


def tell_verdict(config: pytest.Config, nodeid: str, judgement: str) -> str:
    """Tell other plugins of a verdict, given as the text that travels with a test's report.

    Returns: a sentence about what one raised; empty if none did.
    """
    judged = from_json(judgement)
    item = recorded_item(judged, fails=verdicts.fails(judged, config.stash[SESSION].settings))
    hook = config.hook.pytest_rwkvperf_verdict
    return _told(
        "pytest_rwkvperf_verdict", lambda: hook(config=config, nodeid=nodeid, case=judged.item.case, item=item)
    )


def tell_record(config: pytest.Config, record: Record) -> str:
    """Tell other plugins of the run's record; returns a sentence as `tell_verdict` does."""
    hook = config.hook.pytest_rwkvperf_record
    return _told("pytest_rwkvperf_record", lambda: hook(config=config, record=record))


def _told(name: str, call: Callable[[], object]) -> str:
    try:
        call()
    except pytest.exit.Exception:  # a plugin that ends the run means to
        raise
    except Exception as error:  # noqa: BLE001 - another plugin's fault is its own
        return printable(f"a plugin's {name} failed: {type(error).__name__}: {error}; the figures are kept")
    return ""
