"""Scheduling for pytest-xdist: one worker measures all cases of a device, so that devices are measured in parallel.

xdist's own `load` gives out tests in order. Tests of one device follow each other, so two workers would get the same
device, and one of them would wait for its lease while another device is idle.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

    from pytest_rwkvperf.run.folder import RunFolder


class DeviceScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """A unit of work is everything that is measured on one piece of hardware, whatever the engines call it.

    Workers beyond the number of devices are shut down; with fewer workers, the first to finish gets the next device.
    """

    def __init__(self, config: pytest.Config, log: Any, folder: RunFolder) -> None:  # noqa: ANN401 - xdist's own type
        super().__init__(config, log)
        self._folder = folder

    @cached_property
    def _hardware(self) -> Mapping[str, str]:
        """Hardware by node id. Every worker has written it to the run's folder before the first test is given out."""
        return self._folder.outline().hardware

    def _split_scope(self, nodeid: str) -> str:
        return self._hardware.get(nodeid, "")

    def remove_node(self, node: Any) -> str | None:  # noqa: ANN401 - as above
        """Give out the tests of a worker that died, except the one that it was running.

        xdist's own method gives that one out again, and a test that kills its worker would kill all of them.
        """
        units = self.assigned_work.pop(node)
        left: list[tuple[dict[str, bool], str]] = [
            (tests, nodeid) for tests in units.values() for nodeid, done in tests.items() if not done
        ]
        if not left:
            return None
        tests, crashed = left[0]
        tests[crashed] = True
        self.workqueue.update({name: tests for name, tests in units.items() if not all(tests.values())})
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed
