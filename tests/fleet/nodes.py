"""A Ray cluster of node processes on this machine, some of which fail."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil

from pytest_rwkvperf.fleet.cluster import Cluster, Demands
from tests.faults.sandbox import CHECKOUT, SCRIPTED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_rwkvperf.fleet.merge import Merged

ARGUMENTS = (
    *("-p", "no:cacheprovider", "-p", "no:randomly", "--rwkv-backend=scripted", "--rwkv-quant=fp16"),
    *("--rwkv-workload=pp16", "--rwkv-budget=0.01"),
)
MEMORY = 256 << 20


@contextmanager
def cluster(folder: Path, **scripts: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A head without processors, and one node per script, by name. A script is the fault of the node's engine."""
    from ray.cluster_utils import Cluster as Local

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    local = Local(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = {}
    try:
        for name, script in scripts.items():
            environment = {
                "PYTHONPATH": os.pathsep.join(
                    filter(None, [str(CHECKOUT), str(SCRIPTED), os.environ.get("PYTHONPATH")])
                ),
                "XDG_CACHE_HOME": str(folder / name),
                "SCRIPTED_FAULT": script,
                "SCRIPTED_MARK": str(folder / f"{name}-"),
                "SCRIPTED_SANDBOX": folder.name,
            }
            small = name == "small"
            memory = MEMORY // 2 if small else 2 * MEMORY
            nodes[name] = local.add_node(
                num_cpus=1, memory=memory, object_store_memory=80 << 20, env_vars=environment, include_dashboard=False
            )
        local.wait_for_nodes()
        yield local, nodes
    finally:
        local.shutdown()


def processes_of(node: Any) -> list[psutil.Process]:  # noqa: ANN401 - Ray's
    """A node's raylet and everything that it has started."""
    found = []
    for kind in node.all_processes.values():
        for one in kind:
            process = psutil.Process(one.process.pid)
            found += [process, *process.children(recursive=True)]
    return found


def wait_for_fault(folder: Path, name: str, seconds: float = 60) -> None:
    """Wait until a node's engine has reached its fault."""
    limit = time.monotonic() + seconds
    while not any(folder.glob(f"{name}-*")):
        assert time.monotonic() < limit, f"{name} never began to measure"
        time.sleep(0.05)


def suspend(node: Any) -> list[psutil.Process]:  # noqa: ANN401 - Ray's
    """Suspend a node: it exists and does not answer."""
    stopped = processes_of(node)
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    return stopped


def measure(address: str, seconds: float) -> Merged:
    """What `rwkvperf fleet` does."""
    with Cluster(address) as found:
        return found.run(ARGUMENTS, "", Demands(seconds, MEMORY), lambda _sentence, _share: None)


def measure_with_failures(folder: Path, seconds: float = 40) -> tuple[Merged, float]:
    """Measure on five nodes of which one is killed and one stopped in the middle, and one has too little memory."""
    scripts = {"well": "", "also": "", "dies": "sleep@open", "silent": "sleep@open", "small": ""}
    with cluster(folder, **scripts) as (local, there):
        stopped: list[psutil.Process] = []

        def fail_nodes() -> None:
            wait_for_fault(folder, "dies")
            local.remove_node(there["dies"], allow_graceful=False)
            wait_for_fault(folder, "silent")
            stopped.extend(suspend(there["silent"]))

        thread = threading.Thread(target=fail_nodes)
        thread.start()
        started = time.monotonic()
        try:
            merged = measure(local.address, seconds)
        finally:
            thread.join()
            for process in stopped:
                if process.is_running():
                    process.send_signal(signal.SIGCONT)
        return merged, time.monotonic() - started
