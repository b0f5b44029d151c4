"""Hooks under pytest-xdist: a run has several processes, and its controller neither collects nor measures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.run.fixtures import PROPERTY

if TYPE_CHECKING:
    from pytest_rwkvperf.run.session import Session

XdistNode = Any
"""xdist's WorkerController; typed loosely because xdist is optional."""


def relay_usage_error(node: XdistNode) -> None:
    """Raise an xdist worker's usage error in the controller."""
    if message := getattr(node, "workeroutput", {}).get(PROPERTY):
        raise pytest.UsageError(message)


def shared_folder(config: pytest.Config) -> Path | None:
    """The run's folder as the xdist controller made it; None outside an xdist worker."""
    folder = getattr(config, "workerinput", {}).get(PROPERTY)
    return None if folder is None else Path(folder)


def share_folder(node: XdistNode, session: Session) -> None:
    """Tell an xdist worker where the run's folder is, and start showing what the workers write there."""
    node.workerinput[PROPERTY] = str(session.folder.path)
    session.relay.start()


def scheduler(config: pytest.Config, log: Any, session: Session) -> Any:  # noqa: ANN401 - xdist is optional
    """The scheduler that gives tests to xdist's workers; None for xdist's own, unless several devices are measured."""
    if config.getvalue("dist") != "load" or not session.settings.spans_devices:
        return None
    from pytest_rwkvperf.run.device_scheduling import DeviceScheduling

    return DeviceScheduling(config, log, session.folder)
