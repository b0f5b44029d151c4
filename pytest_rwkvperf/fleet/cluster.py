"""A run on every machine of a Ray cluster: one exclusive task a node, whose record comes back with it.

Ray moves the task, keeps others off the node and tells of nodes that are gone. What runs there is the ordinary
`pytest --rwkv-…`, in an environment that has this project and its engines; nothing of it is sent.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.errors import FleetError, OptionError, RecordError
from pytest_rwkvperf.core.text import safe
from pytest_rwkvperf.fleet.merge import Merged, Missing, join
from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

INSTALL = "pip install 'pytest-rwkvperf[fleet]'"
_TAIL_LETTERS = 2000
_STEP_SECONDS = 1.0
_GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from a node: the record's text, and the end of what pytest said."""

    code: int
    record: str
    tail: str


@dataclass(frozen=True, slots=True)
class Demands:
    """What a run needs: seconds at most, and bytes of memory, of which Ray must promise as many on the node."""

    seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster; `name` is its address, with its id where several share one."""

    id: str
    name: str
    resources: dict[str, float]


def measure(arguments: Sequence[str], folder: str, deadline: float) -> Answer:
    """Run pytest here, in a folder of the node's own or in an empty one; called on the node."""
    with tempfile.TemporaryDirectory(prefix="rwkvperf-fleet-") as temporary:
        record = Path(temporary, "record.json")
        command = [
            sys.executable,
            "-m",
            "pytest_rwkvperf.fleet.child_pytest",
            *arguments,
            f"--rwkv-report=json:{record}",
        ]
        process = subprocess.Popen(
            command,
            cwd=folder or temporary,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            said = _said(process, deadline)
        except BaseException:
            process.kill()
            raise
        text = record.read_text(encoding="utf-8") if record.exists() else ""
    return Answer(process.returncode, text, said[-_TAIL_LETTERS:])


def _said(process: subprocess.Popen[str], deadline: float) -> str:
    """What a run printed; one that is not done by its deadline has ended too when this comes back."""
    with suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=deadline)[0]
    # As Ctrl-C: pytest still writes a record of what there is.
    process.send_signal(signal.SIGINT if sys.platform != "win32" else signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=_GRACE_SECONDS)[0]
    process.kill()
    return process.communicate()[0]


class Cluster:
    """A connection to a Ray cluster. Use it as a context manager."""

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError as error:
            raise FleetError(f"Ray is not installed for {sys.executable} ({error}): {INSTALL}") from error
        self._ray: Any = ray
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise FleetError(f"no Ray cluster answers at {address!r} ({error}); start one with `ray start`") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def nodes(self) -> list[Node]:
        """The machines that are alive and offer processors, which a head may not."""
        alive = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        hosts = [node["NodeManagerAddress"] for node in alive]
        return [
            Node(node["NodeID"], host if hosts.count(host) == 1 else f"{host} {node['NodeID'][:8]}", node["Resources"])
            for node, host in sorted(zip(alive, hosts, strict=True), key=lambda pair: (pair[1], pair[0]["NodeID"]))
        ]

    def run(self, arguments: Sequence[str], folder: str, demands: Demands, say: Callable[[str, float], None]) -> Merged:
        """Measure on every node at once, each at most for the seconds demanded; whatever a node does, others go on."""
        nodes = self.nodes()
        missing = [Missing(node.name, reason) for node in nodes if (reason := _too_small(node, demands))]
        able = [node for node in nodes if not _too_small(node, demands)]
        waiting = {self._start(node, arguments, folder, demands): node for node in able}
        runs: list[records.Record] = []
        limit = time.monotonic() + demands.seconds + 2 * _GRACE_SECONDS
        while waiting and time.monotonic() < limit:
            done, _ = self._ray.wait([*waiting], num_returns=1, timeout=_STEP_SECONDS)
            for reference in done:
                found = self._result(reference, waiting.pop(reference))
                (missing if isinstance(found, Missing) else runs).append(found)  # type: ignore[arg-type]
            say(f"{len(runs)} records, {len(missing)} machines missing", 1 - len(waiting) / max(1, len(nodes)))
        for reference, node in waiting.items():
            self._ray.cancel(reference, force=True)
            missing.append(Missing(node.name, f"no answer within {demands.seconds:.0f} s; its task was cancelled"))
        return join(runs, missing)

    def _start(self, node: Node, arguments: Sequence[str], folder: str, demands: Demands) -> Any:  # noqa: ANN401 - Ray's
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        task = self._ray.remote(
            # All of the node's processors and GPUs, so that Ray runs nothing else there meanwhile; never a second try.
            num_cpus=node.resources["CPU"],
            num_gpus=node.resources.get("GPU", 0),
            memory=demands.memory_bytes or None,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node.id, soft=False),
        )(measure)
        return task.remote([*arguments], folder, demands.seconds)

    def _result(self, reference: Any, node: Node) -> records.Record | Missing:  # noqa: ANN401 - Ray's
        try:
            answer: Answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Missing(node.name, safe(f"{type(error).__name__}: {str(error).splitlines()[0]}"))
        if not answer.record:
            last = " / ".join(answer.tail.strip().splitlines()[-3:])
            return Missing(node.name, safe(f"pytest ended with exit code {answer.code} and left no record: {last}"))
        try:
            return records.loads(answer.record, Path(node.name))
        except RecordError as error:
            return Missing(node.name, str(error))


def _too_small(node: Node, demands: Demands) -> str:
    """Why a node cannot run it; empty when it can."""
    there = node.resources.get("memory", 0)
    if there >= demands.memory_bytes:
        return ""
    return f"has {there / 2**30:.1f} GiB of memory for tasks, {demands.memory_bytes / 2**30:.1f} GiB are asked for"


def memory_bytes(text: str) -> int:
    """Read `4G`, `512M` or a number of bytes.

    Raises:
        OptionError: it is none.
    """
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in units else (text, "")
    if not (number.isascii() and number.isdigit()):
        raise OptionError(f"--memory={text!r} is no size; write for example 4G")
    return int(number) << units.get(unit, 0)
