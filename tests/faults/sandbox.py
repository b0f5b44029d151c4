"""Run pytest in a sandbox, with faults in some of its cases, and observe the run from outside.

A sandbox has a temporary folder and a baseline of its own; all of them share a cache. The engine is the scripted one of
tests/scripted, whose faults are real: it aborts, hangs with every signal blocked, is killed by the kernel. Each fault
has a case of its own, which differs in the quant (`int8@0`, `int8@1`, ...); the case `fp16` is healthy and must pass.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.conftest import QUIET, new_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHECKOUT = Path(__file__).parents[2]
SCRIPTED = CHECKOUT / "tests" / "scripted"
TIMEOUT = 600.0
HEALTHY = "fp16"
HANGS_FOR, DEADLINE = 6.0, 120.0
"""Deadline of a request in seconds: in a case that hangs, and in all others, however slow the machine is."""

REFUSAL_SECONDS, STOP_SECONDS, RUN_SECONDS = 20.0, 4.0, 60.0
"""Promised seconds until a run ends: from its start if it is refused, from a signal, and from its start if it goes on
after a fault."""

SLACK = 5
"""Tests allow this many times the promised seconds, since a shared machine is slow at times."""


def allowed(promised: float) -> float:
    """Seconds that a test allows; with RWKVPERF_PROVE, whose figures are published, exactly those promised."""
    return promised if "RWKVPERF_PROVE" in os.environ else SLACK * promised


PLUGIN = """
import json, os, time
from pathlib import Path
from pytest_rwkvperf.measure.probes import Prober
from pytest_rwkvperf.worker import parent

Prober._time = lambda *_: 70_000
parent._GRACE_SECONDS = 0.5

def pytest_runtest_logstart(nodeid):
    hangs = any(f"-{quant}-" in nodeid for quant in os.environ["SANDBOX_HANGING"].split())
    parent.SAMPLE_SECONDS = float(os.environ["SANDBOX_HANGS_FOR" if hangs else "SANDBOX_DEADLINE"])
    # Read by sitecustomize.py: processes that start now end before their first message.
    here, quant = Path(os.environ["SANDBOX_FOLDER"], "die-at-start"), os.environ.get("SANDBOX_AT_START")
    if quant and f"-{quant}-" in nodeid:
        here.touch()
    else:
        here.unlink(missing_ok=True)

def pytest_runtest_logreport(report):
    with open(Path(os.environ["SANDBOX_FOLDER"], "reports"), "a") as file:
        result = {"id": report.nodeid, "when": report.when, "outcome": report.outcome, "time": time.time()}
        file.write(json.dumps({**result, "text": report.longreprtext}) + "\\n")
"""

SITECUSTOMIZE = """
import os, sys, time
folder = os.environ.get("SCRIPTED_SITE", "/nowhere")
if os.path.exists(os.path.join(folder, "die-at-start")) and "bootstrap" in "".join(sys.orig_argv):
    mark = os.environ["SCRIPTED_MARK"] + os.environ["SCRIPTED_AT_START"]
    if not os.path.exists(mark):
        with open(mark, "w") as file:
            file.write(str(time.time()))
    sys.stderr.write("libcudart.so.13: cannot open shared object file\\n")
    sys.stderr.flush()
    os._exit(127)
"""


@dataclass(frozen=True)
class Outcome:
    """How one test ended: passed or failed, its message, and when (Unix time)."""

    id: str
    outcome: str
    text: str
    time: float


@dataclass(frozen=True)
class ObservedRun:
    """A run that has ended: exit code, output, outcomes, and what it left behind."""

    code: int
    text: str
    seconds: float
    """From the signal that it got, or else from its start, to its end."""
    tests: tuple[Outcome, ...]
    marks: dict[str, float]
    """When each quant's fault happened (Unix time)."""
    faulty: frozenset[str]
    """The quants that have a fault; empty if all have it."""
    orphans: list[str]
    """Processes that outlived the run."""
    left: list[str]
    """New files in the temporary folder, in the cache's folder for runs, and beside the baselines."""
    changed: list[str]
    """Baselines that were added, removed or modified."""

    @property
    def sentence(self) -> str:
        """The output as one line."""
        return " ".join(self.text.split())

    def of(self, quant: str) -> list[Outcome]:
        """The tests of a case."""
        return [test for test in self.tests if f"-{quant}-" in test.id]

    def noticed(self, quant: str) -> float | None:
        """Seconds from a case's fault to the report of its first failed test; None without a fault or a failure."""
        failed = [test.time for test in self.of(quant) if test.outcome == "failed"]
        return min(failed) - self.marks[quant] if failed and quant in self.marks else None

    def problems(self, *, saves: bool = False, killed: bool = False) -> list[str]:
        """Broken promises that hold for every fault.

        Args:
            saves: the run stores figures.
            killed: the run was killed, so it leaves files.
        """
        ended_early = {pytest.ExitCode.INTERRUPTED, -signal.SIGKILL}
        promised = STOP_SECONDS if self.code in ended_early else RUN_SECONDS
        limit = allowed(REFUSAL_SECONDS if self.code == pytest.ExitCode.USAGE_ERROR else promised)
        spared = [test for test in self.tests if not any(f"-{quant}-" in test.id for quant in self.faulty)]
        failed = [test for test in spared if self.faulty and test.outcome != "passed"]
        broken = {
            f"ended after {self.seconds:.1f} s, promised {limit}": self.seconds > limit,
            f"tests without a fault: {failed}": bool(failed),
            f"processes left: {self.orphans}": bool(self.orphans),
            f"files left: {self.left}": bool(self.left) and not killed,
            f"baselines changed: {self.changed}": bool(self.changed) and not saves,
        }
        return [promise for promise, is_broken in broken.items() if is_broken]


@dataclass
class SandboxFactory:
    """Makes sandboxes. Their model, the oracle's logits and the baseline are made once, by a run without faults."""

    folder: Path
    environment: dict[str, str] = field(init=False)
    baseline: Path | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        drop = ("SCRIPTED_", "PYTEST_", "RWKV")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(drop)},
            "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), str(SCRIPTED), os.environ.get("PYTHONPATH")])),
            "XDG_CACHE_HOME": str(new_cache(self.folder / "cache")),
            "PYTEST_ADDOPTS": " ".join([*QUIET, "-p", "scripted_machine"]),
            "COLUMNS": "160",
        }
        sandbox = Sandbox(self)
        result = sandbox.run("--rwkv-save-baseline", "--rwkv-device=cpu,spare:0", saves=True)
        assert result.code == 0, result.text
        (self.baseline,) = (sandbox.folder / "baselines").glob("*-*.json")

    def __call__(self) -> Sandbox:
        """A sandbox with a copy of the baseline."""
        assert self.baseline is not None
        sandbox = Sandbox(self)
        sandbox.path.parent.mkdir()
        shutil.copy(self.baseline, sandbox.path)
        return sandbox


class Sandbox:
    """The folders in which one run is started."""

    def __init__(self, factory: SandboxFactory) -> None:
        self.name = uuid.uuid4().hex[:12]
        self.extra: dict[str, str] = {}
        """Further variables of the run's environment."""
        self.timed_from = 0.0
        """When the run was sent a signal, or else when it began, by the monotonic clock."""
        self._factory = factory
        self.root = factory.folder / self.name
        self.folder, self.temporary = self.root / "meine Läufe", self.root / "tmp"
        for folder in (self.folder, self.temporary):
            folder.mkdir(parents=True)
        (self.root / "sandbox_plugin.py").write_text(PLUGIN, encoding="utf-8")
        (self.root / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")

    @property
    def path(self) -> Path:
        """The sandbox's baseline."""
        stored = self._factory.baseline
        return self.folder / "baselines" / (stored.name if stored else "none.json")

    def command(self, *arguments: str) -> list[str]:
        """Pytest on two small workloads of each case."""
        options = (f"--rwkv-quant={HEALTHY}", "--rwkv-workload=pp16,tg4", "--rwkv-budget=0.01", "--rwkv-tolerance=40%")
        loaded = ("-p", "sandbox_plugin", "--rwkv-backend=scripted")
        return [sys.executable, "-m", "pytest", *loaded, *options, *arguments]

    def variables(self, script: Mapping[str, str]) -> dict[str, str]:
        """The run's environment; `script` becomes the variables SCRIPTED_*, which tests/scripted documents."""
        base = self._factory.environment
        at_start = script.get("at_start", "")
        return {
            **base,
            "PYTHONPATH": os.pathsep.join([base["PYTHONPATH"], str(self.root)]),
            "TMPDIR": str(self.temporary),
            "SANDBOX_FOLDER": str(self.root),
            "SANDBOX_DEADLINE": str(DEADLINE),
            "SANDBOX_HANGS_FOR": str(HANGS_FOR),
            "SANDBOX_HANGING": script.get("hanging", ""),
            "SANDBOX_AT_START": at_start,
            "SCRIPTED_SITE": str(self.root),
            "SCRIPTED_SANDBOX": self.name,
            "SCRIPTED_MARK": str(self.root / "mark-"),
            **{f"SCRIPTED_{name.upper()}": value for name, value in script.items()},
            **self.extra,
        }

    def start(self, *arguments: str, **script: str) -> subprocess.Popen[str]:
        """Start a run without waiting for it."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.variables(script),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def run(
        self,
        *arguments: str,
        meanwhile: Callable[[subprocess.Popen[str]], None] | None = None,
        saves: bool = False,
        killed: bool = False,
        **script: str,
    ) -> ObservedRun:
        """Run to the end, and assert the promises that hold for every fault (`ObservedRun.problems`)."""
        result = self.observe(*arguments, meanwhile=meanwhile, timeout=TIMEOUT, **script)
        problems = result.problems(saves=saves, killed=killed)
        assert not problems, "\n".join([*problems, result.text[-5000:]])
        return result

    def observe(
        self,
        *arguments: str,
        meanwhile: Callable[[subprocess.Popen[str]], None] | None = None,
        timeout: float = TIMEOUT,
        **script: str,
    ) -> ObservedRun:
        """Run to the end; `meanwhile` is called while the run goes on."""
        folder = next(
            (Path(option.partition("=")[2]) for option in arguments if "-baseline-dir=" in option), self.path.parent
        )
        before, there = contents(folder), self._temporary()
        self.timed_from = time.monotonic()
        with self.start(*arguments, **script) as process:
            try:
                if meanwhile is not None:
                    meanwhile(process)
                text, _ = process.communicate(timeout=timeout)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        seconds = time.monotonic() - self.timed_from
        after = contents(folder)
        changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
        stray = {str(folder / name) for name in after if name not in before and not name.endswith(".json")}
        return ObservedRun(
            process.returncode, text, seconds, self._tests(), self._marks(), faulty_quants(script), self.orphans(),
            sorted((self._temporary() - there) | stray), changed,
        )  # fmt: skip

    def _marks(self) -> dict[str, float]:
        return {
            path.name.removeprefix("mark-"): float(path.read_text(encoding="ascii") or "nan")
            for path in self.root.glob("mark-*")
        }

    def _tests(self) -> tuple[Outcome, ...]:
        """The outcomes of tests that were called, or failed before that."""
        path = self.root / "reports"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        reports = [json.loads(line) for line in lines]
        kept = [report for report in reports if report.pop("when") == "call" or report["outcome"] != "passed"]
        return tuple(Outcome(**report) for report in kept)

    def orphans(self) -> list[str]:
        """The sandbox's processes that are still there some time after the run's end."""
        limit = time.monotonic() + allowed(0.5)
        while (processes := self._processes()) and time.monotonic() < limit:
            time.sleep(0.05)
        return processes

    def _processes(self) -> list[str]:
        return [
            f"{process.pid} {' '.join(process.info['cmdline'] or [])[:80]}"
            for process in psutil.process_iter(["environ", "status", "cmdline"])
            if (process.info["environ"] or {}).get("SCRIPTED_SANDBOX") == self.name
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]

    def _temporary(self) -> set[str]:
        """Files in the temporary folder and in the cache's folder for runs."""
        runs = self._factory.folder / "cache" / "pytest-rwkvperf" / "runs"
        # pytest keeps its last three folders
        temporary = [path for path in self.temporary.iterdir() if not path.name.startswith("pytest-of-")]
        return {str(path) for path in (*temporary, *runs.glob("*"))}


def is_running(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def contents(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder; of a link, its target."""
    return {
        path.name: os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes() for path in folder.glob("*")
    }


def faulty_quants(script: Mapping[str, str]) -> frozenset[str]:
    """The quants with a fault in a script; empty if a fault is in every case."""
    faults = [fault.split("@", 2) for fault in script.get("fault", "").split(";") if fault]
    if any(len(fault) < 3 for fault in faults):
        return frozenset()
    return frozenset([*(fault[2] for fault in faults), *filter(None, [script.get("at_start", "")])])
