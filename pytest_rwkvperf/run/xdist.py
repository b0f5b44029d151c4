"""Under pytest-xdist: each device's cases go to one worker, so that several devices are measured at the same time.

xdist's own `load` hands out tests in the order they stand in. Cases of one device stand together, so two workers would
get the same device's and one of them would wait for its lease while another device rests.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

    from pytest_rwkvperf.run.folder import RunFolder


class DeviceScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist says nothing of its types
    """A unit of work is everything that is measured on one piece of hardware, under whichever of its names.

    Workers beyond the number of devices are sent home; with fewer of them, whoever is done first gets the next device.
    """

    def __init__(self, config: pytest.Config, log: Any, folder: RunFolder) -> None:  # noqa: ANN401 - xdist's own type
        super().__init__(config, log)
        self._folder = folder

    @cached_property
    def _hardware(self) -> Mapping[str, str]:
        """By node id; every worker has left it in the run's folder before the first test is given out."""
        return self._folder.outline().hardware

    def _split_scope(self, nodeid: str) -> str:
        return self._hardware.get(nodeid, "")

    def remove_node(self, node: Any) -> str | None:  # noqa: ANN401 - as above
        """A worker is gone: the test that it was at is lost and no other one.

        xdist's own would give that test out again, and a test that kills its worker would kill them all.
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
