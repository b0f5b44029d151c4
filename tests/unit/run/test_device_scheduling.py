"""Several devices under pytest-xdist: each one's cases on one worker, devices at the same time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("xdist")

from pytest_rwkvperf.run.device_scheduling import DeviceScheduling
from pytest_rwkvperf.run.folder import Outline, RunFolder

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SECOND = "0000-00-06.0", "0000-00-07.0"
TESTS = {
    "llama-cuda:0-pp": FIRST, "llama-cuda:0-tg": FIRST, "llama-cuda:0-pp2": FIRST,
    "llama-cuda:1-pp": SECOND, "llama-cuda:1-tg": SECOND, "llama-cuda:1-pp2": SECOND,
    "web-vulkan:0-pp": FIRST,
}  # fmt: skip


class Node:
    """As much of xdist's worker as a scheduler sees."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.shutting_down = False
        self.given: list[str] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += [list(TESTS)[index] for index in indices]

    def shutdown(self) -> None:
        self.shutting_down = True


@pytest.fixture
def scheduling(tmp_path: Path) -> DeviceScheduling:
    folder = RunFolder(tmp_path)
    folder.keep_outline(Outline(hardware=TESTS))
    config: Any = SimpleNamespace(getvalue=lambda _name: ["2*popen"], option=SimpleNamespace(loadscopereorder=True))
    made = DeviceScheduling(config, None, folder)
    made.numnodes = 2
    return made


def started(scheduling: DeviceScheduling, count: int) -> list[Any]:
    nodes: list[Any] = [Node(f"gw{index}") for index in range(count)]
    scheduling.numnodes = count
    for node in nodes:
        scheduling.add_node(node)
        scheduling.add_node_collection(node, list(TESTS))
    scheduling.schedule()
    return nodes


def test_all_names_of_a_gpu_go_to_one_worker(scheduling: DeviceScheduling) -> None:
    first, second = started(scheduling, 2)
    assert {TESTS[name] for name in first.given} == {FIRST}
    assert {TESTS[name] for name in second.given} == {SECOND}
    assert sorted(first.given + second.given) == sorted(TESTS)


def test_workers_without_a_device_are_shut_down(scheduling: DeviceScheduling) -> None:
    first, second, spare = started(scheduling, 3)
    assert scheduling.nodes == [first, second]
    assert (spare.given, spare.shutting_down) == ([], True)


def test_one_worker_takes_one_device_after_the_other(scheduling: DeviceScheduling) -> None:
    (node,) = started(scheduling, 1)
    for name in list(node.given):
        scheduling.mark_test_complete(node, list(TESTS).index(name))
    assert [TESTS[name] for name in node.given] == [FIRST] * 4 + [SECOND] * 3


def test_a_dead_worker_costs_only_its_current_test(scheduling: DeviceScheduling) -> None:
    first, _second = started(scheduling, 2)
    scheduling.mark_test_complete(first, list(TESTS).index(first.given[0]))
    assert scheduling.remove_node(first) == first.given[1]
    instead: Any = Node("gw2")
    scheduling.add_node(instead)
    scheduling.add_node_collection(instead, list(TESTS))
    scheduling.schedule()
    assert instead.given == first.given[2:]
    for name in instead.given:
        scheduling.mark_test_complete(instead, list(TESTS).index(name))
    assert scheduling.remove_node(instead) is None
