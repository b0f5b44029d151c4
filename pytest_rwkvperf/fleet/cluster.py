"""Measure on every machine of a Ray cluster: one exclusive task per node, which returns the node's record.

Ray starts the task, keeps other tasks off the node and reports nodes that died. The task runs the ordinary
`pytest --rwkv-…` in the node's own environment, which must have this project and its engines; no code is sent.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.errors import FleetError, OptionError, RecordError
from pytest_rwkvperf.core.text import counted, safe
from pytest_rwkvperf.fleet.merge import Merged, Missing, join
from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

INSTALL = "pip install ray"
_TAIL_LETTERS = 2000
_STEP_SECONDS = 1.0
_GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node returned: pytest's exit code, the record's text (empty if there is none), the end of the output."""

    code: int
    record: str
    tail: str


@dataclass(frozen=True, slots=True)
class Demands:
    """The requirements of a run: the seconds it may take, and the bytes of memory that Ray must reserve on the node."""

    seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster; `name` is its address, with its id if several share the address."""

    id: str
    name: str
    resources: dict[str, float]


def measure(arguments: Sequence[str], folder: str, deadline: float) -> Answer:
    """Run pytest on the node this is called on, in `folder` or, if that is empty, in an empty temporary one."""
    with folders.temporary("fleet") as temporary:
        record = temporary / "record.json"
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
            output = _output(process, deadline)
        except BaseException:
            process.kill()
            raise
        text = record.read_text(encoding="utf-8") if record.exists() else ""
    return Answer(process.returncode, text, output[-_TAIL_LETTERS:])


def _output(process: subprocess.Popen[str], deadline: float) -> str:
    """Wait for a run and return what it printed; a run past its deadline is ended."""
    with suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=deadline)[0]
    # Like Ctrl-C: pytest still writes a record of what was measured.
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
        """The machines that are alive and offer processors; a head node may offer none."""
        alive = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        hosts = [node["NodeManagerAddress"] for node in alive]
        return [
            Node(node["NodeID"], host if hosts.count(host) == 1 else f"{host} {node['NodeID'][:8]}", node["Resources"])
            for node, host in sorted(zip(alive, hosts, strict=True), key=lambda pair: (pair[1], pair[0]["NodeID"]))
        ]

    def run(self, arguments: Sequence[str], folder: str, demands: Demands, say: Callable[[str, float], None]) -> Merged:
        """Measure on all nodes at once, each within the demanded seconds. A node's failure does not stop the others."""
        nodes = self.nodes()
        missing = [Missing(node.name, reason) for node in nodes if (reason := _too_small(node, demands))]
        able = [node for node in nodes if not _too_small(node, demands)]
        waiting = {self._start(node, arguments, folder, demands): node for node in able}
        runs: list[records.Record] = []
        limit = time.monotonic() + demands.seconds + 2 * _GRACE_SECONDS
        while waiting and time.monotonic() < limit:
            done, _ = self._ray.wait([*waiting], num_returns=1, timeout=_STEP_SECONDS)
            for reference in done:
                result = self._result(reference, waiting.pop(reference))
                if isinstance(result, Missing):
                    missing.append(result)
                else:
                    runs.append(result)
            say(
                f"{counted(len(runs), 'record')}, {counted(len(missing), 'machine')} missing",
                1 - len(waiting) / max(1, len(nodes)),
            )
        for reference, node in waiting.items():
            self._ray.cancel(reference, force=True)
            missing.append(Missing(node.name, f"no answer within {demands.seconds:.0f} s; its task was cancelled"))
        return join(runs, missing)

    def _start(self, node: Node, arguments: Sequence[str], folder: str, demands: Demands) -> Any:  # noqa: ANN401 - Ray's
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        task = self._ray.remote(
            # All processors and GPUs, so that Ray runs nothing else on the node meanwhile. No retries.
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
    """Why a node has too little memory; empty if it has enough."""
    available = node.resources.get("memory", 0)
    if available >= demands.memory_bytes:
        return ""
    return f"has {available / 2**30:.1f} GiB of memory for tasks, {demands.memory_bytes / 2**30:.1f} GiB are asked for"


def memory_bytes(text: str) -> int:
    """Read `4G`, `512M` or a number of bytes.

    Raises:
        OptionError: it is something else.
    """
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in units else (text, "")
    if not (number.isascii() and number.isdigit()):
        raise OptionError(f"--memory={text!r} is no size; write for example 4G")
    return int(number) << units.get(unit, 0)
