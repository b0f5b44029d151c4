"""A run of pytest in which some cases meet a fault and one does not, and all that can be seen of it from outside.

The run is a process of its own with a cache, a temporary folder and a baseline of its own. The engine is the scripted
one of tests/scripted, whose faults are real: it aborts, hangs with every signal blocked, is ended by the kernel.
Each fault has a case of its own, told apart by the quant (`int8@0`, `int8@1`, ...); the case `fp16` must pass as if
nothing had happened.
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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHECKOUT = Path(__file__).parents[2]
SCRIPTED = CHECKOUT / "tests" / "scripted"
TIMEOUT = 600.0
GOOD = "fp16"
HANGS_FOR, DEADLINE = 6.0, 120.0
"""Seconds that a request may take: of a case that is to hang, and of all others, however slow the machine is."""

REFUSED, STOPPED, WHOLE = 20.0, 4.0, 60.0
"""The longest times to notice, in seconds: what keeps a run from starting, from its start; a signal, from when it was
sent; and a fault that a run outlives, from the run's start to its end with all the other tests."""

PATIENCE = 5
"""How many times as long a test allows: two processors that others use as well are late with everything at times. What
does break a promise, a deadline that has to pass or a wait without an end, takes longer still."""


def allowed(promised: float) -> float:
    """Seconds that a test waits for what is promised sooner; in a proof, whose figures are published, no more."""
    return promised if "RWKVPERF_PROVE" in os.environ else PATIENCE * promised


PLUGIN = """
import json, os, time
from pathlib import Path
from pytest_rwkvperf.machine import usage
from pytest_rwkvperf.measure.probes import Prober
from pytest_rwkvperf.worker import parent

# What else the machine does while the tests run is not what they are about, and would widen every bound.
usage.crowding = lambda *_: 0.0
Prober._time = lambda *_: 70_000
parent._GRACE_SECONDS = 0.5

def pytest_runtest_logstart(nodeid):
    hangs = any(f"-{quant}-" in nodeid for quant in os.environ["SCENE_HANGING"].split())
    parent.SAMPLE_SECONDS = float(os.environ["SCENE_HANGS_FOR" if hangs else "SCENE_DEADLINE"])
    # Read by sitecustomize.py: processes that start now end before their first message.
    here, quant = Path(os.environ["SCENE_FOLDER"], "die-at-start"), os.environ.get("SCENE_AT_START")
    if quant and f"-{quant}-" in nodeid:
        here.touch()
    else:
        here.unlink(missing_ok=True)

def pytest_runtest_logreport(report):
    with open(Path(os.environ["SCENE_FOLDER"], "reports"), "a") as file:
        told = {"id": report.nodeid, "when": report.when, "outcome": report.outcome, "time": time.time()}
        file.write(json.dumps({**told, "text": report.longreprtext}) + "\\n")
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
class Test:
    """How one test ended: its outcome, its words, and when (seconds since 1970)."""

    __test__ = False

    id: str
    outcome: str
    text: str
    time: float


@dataclass(frozen=True)
class Seen:
    """What a run left: its end, its words, and what it should not have left."""

    code: int
    text: str
    seconds: float
    """From the signal that the run got, or from its start, to its end."""
    tests: tuple[Test, ...]
    marks: dict[str, float]
    """When each quant's fault happened, seconds since 1970."""
    faulty: frozenset[str]
    """The quants that a fault was meant for; empty when it was meant for none in particular."""
    orphans: list[str]
    left: list[str]
    """New ones in the temporary folder, in the cache's folder for runs, and beside the baselines."""
    changed: list[str]
    """Baselines that are not byte for byte what they were."""

    @property
    def sentence(self) -> str:
        """The output as one line."""
        return " ".join(self.text.split())

    def of(self, quant: str) -> list[Test]:
        """The tests of a case."""
        return [test for test in self.tests if f"-{quant}-" in test.id]

    def noticed(self, quant: str) -> float | None:
        """Seconds from a case's fault to the report of its first failed test; None without a fault or a failure."""
        failed = [test.time for test in self.of(quant) if test.outcome == "failed"]
        return min(failed) - self.marks[quant] if failed and quant in self.marks else None

    def problems(self, *, saves: bool = False, killed: bool = False) -> list[str]:
        """What no fault may do.

        Args:
            saves: the run was to store figures.
            killed: the run could not clear up.
        """
        stopped = {pytest.ExitCode.INTERRUPTED, -signal.SIGKILL}
        promised = REFUSED if self.code == pytest.ExitCode.USAGE_ERROR else STOPPED if self.code in stopped else WHOLE
        limit = allowed(promised)
        spared = [test for test in self.tests if not any(f"-{quant}-" in test.id for quant in self.faulty)]
        hurt = [test for test in spared if self.faulty and test.outcome != "passed"]
        told = {
            f"ended after {self.seconds:.1f} s, promised {limit}": self.seconds > limit,
            f"tests without a fault: {hurt}": bool(hurt),
            f"processes left: {self.orphans}": bool(self.orphans),
            f"files left: {self.left}": bool(self.left) and not killed,
            f"baselines changed: {self.changed}": bool(self.changed) and not saves,
        }
        return [what for what, holds in told.items() if holds]


@dataclass
class Stage:
    """Where scenes are played: the model and the baseline are made once, by a run in which nothing happens."""

    folder: Path
    environment: dict[str, str] = field(init=False)
    baseline: Path | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        drop = ("SCRIPTED_", "PYTEST_", "RWKV")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(drop)},
            "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), str(SCRIPTED), os.environ.get("PYTHONPATH")])),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "COLUMNS": "160",
        }
        scene = Scene(self)  # the engine's right answers are computed once, now
        seen = scene.run("--rwkv-save-baseline", "--rwkv-device=cpu,spare:0", saves=True)
        assert seen.code == 0, seen.text
        (self.baseline,) = (scene.folder / "baselines").iterdir()

    def __call__(self) -> Scene:
        """A scene with a copy of the baseline."""
        assert self.baseline is not None
        scene = Scene(self)
        scene.path.parent.mkdir()
        shutil.copy(self.baseline, scene.path)
        return scene


class Scene:
    """One run's folder."""

    def __init__(self, stage: Stage) -> None:
        self.name = uuid.uuid4().hex[:12]
        self.extra: dict[str, str] = {}
        """Further variables of the run's environment."""
        self.happened = 0.0
        """When something was done to the run from outside, or else when it began, by the monotonic clock."""
        self._stage = stage
        self.backstage = stage.folder / self.name
        self.folder, self.temporary = self.backstage / "meine Läufe", self.backstage / "tmp"
        for folder in (self.folder, self.temporary):
            folder.mkdir(parents=True)
        (self.backstage / "scene_plugin.py").write_text(PLUGIN, encoding="utf-8")
        (self.backstage / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")

    @property
    def path(self) -> Path:
        """The scene's baseline."""
        stored = self._stage.baseline
        return self.folder / "baselines" / (stored.name if stored else "none.json")

    def command(self, *arguments: str) -> list[str]:
        """Pytest on two small workloads of each case."""
        options = (f"--rwkv-quant={GOOD}", "--rwkv-workload=pp16,tg4", "--rwkv-budget=0.01", "--rwkv-tolerance=40%")
        plugins = ("scene_plugin", "no:cacheprovider", "no:hypothesispytest", "no:anyio", "no:randomly")
        loaded = [part for plugin in plugins for part in ("-p", plugin)]
        return [sys.executable, "-m", "pytest", *loaded, "--rwkv-backend=scripted", *options, *arguments]

    def variables(self, script: Mapping[str, str]) -> dict[str, str]:
        """The run's environment; `script` is what SCRIPTED_* says, in small letters."""
        base = self._stage.environment
        at_start = script.get("at_start", "")
        return {
            **base,
            "PYTHONPATH": os.pathsep.join([base["PYTHONPATH"], str(self.backstage)]),
            "TMPDIR": str(self.temporary),
            "SCENE_FOLDER": str(self.backstage),
            "SCENE_DEADLINE": str(DEADLINE),
            "SCENE_HANGS_FOR": str(HANGS_FOR),
            "SCENE_HANGING": script.get("hanging", ""),
            "SCENE_AT_START": at_start,
            "SCRIPTED_SITE": str(self.backstage),
            "SCRIPTED_SCENE": self.name,
            "SCRIPTED_MARK": str(self.backstage / "mark-"),
            **{f"SCRIPTED_{name.upper()}": value for name, value in script.items()},
            **self.extra,
        }

    def start(self, *arguments: str, **script: str) -> subprocess.Popen[str]:
        """Begin a run and come back at once."""
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
    ) -> Seen:
        """A whole run that keeps what every fault's row promises (`Seen.problems`)."""
        seen = self.play(*arguments, meanwhile=meanwhile, timeout=TIMEOUT, **script)
        problems = seen.problems(saves=saves, killed=killed)
        assert not problems, "\n".join([*problems, seen.text[-5000:]])
        return seen

    def play(
        self,
        *arguments: str,
        meanwhile: Callable[[subprocess.Popen[str]], None] | None = None,
        timeout: float = TIMEOUT,
        **script: str,
    ) -> Seen:
        """A whole run, and what is to be seen of it; `meanwhile` is called while it goes on."""
        folder = next((Path(one.partition("=")[2]) for one in arguments if "-baseline-dir=" in one), self.path.parent)
        before, there = contents(folder), self._temporary()
        self.happened = time.monotonic()
        with self.start(*arguments, **script) as process:
            try:
                if meanwhile is not None:
                    meanwhile(process)
                text, _ = process.communicate(timeout=timeout)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        seconds = time.monotonic() - self.happened
        after = contents(folder)
        changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
        strange = {str(folder / name) for name in after if name not in before and not name.endswith(".json")}
        return Seen(
            process.returncode, text, seconds, self._tests(), self._marks(), targets(script), self.orphans(),
            sorted((self._temporary() - there) | strange), changed,
        )  # fmt: skip

    def _marks(self) -> dict[str, float]:
        return {
            path.name.removeprefix("mark-"): float(path.read_text(encoding="ascii") or "nan")
            for path in self.backstage.glob("mark-*")
        }

    def _tests(self) -> tuple[Test, ...]:
        """The tests that were called, or failed before."""
        path = self.backstage / "reports"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        told = [json.loads(line) for line in lines]
        kept = [one for one in told if one["when"] == "call" or one["outcome"] != "passed"]
        return tuple(Test(one["id"], one["outcome"], one["text"], one["time"]) for one in kept)

    def orphans(self) -> list[str]:
        """Processes of the scene that are still there some time after its end."""
        limit = time.monotonic() + allowed(0.5)
        while (found := self._members()) and time.monotonic() < limit:
            time.sleep(0.05)
        return found

    def _members(self) -> list[str]:
        return [
            f"{process.pid} {' '.join(process.info['cmdline'] or [])[:80]}"
            for process in psutil.process_iter(["environ", "status", "cmdline"])
            if (process.info["environ"] or {}).get("SCRIPTED_SCENE") == self.name
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]

    def _temporary(self) -> set[str]:
        """What lies in the temporary folder and in the cache's folder for runs."""
        runs = self._stage.folder / "cache" / "pytest-rwkvperf" / "runs"
        # pytest's own folder, of which it keeps the last three
        temporary = [path for path in self.temporary.iterdir() if not path.name.startswith("pytest-of-")]
        return {str(path) for path in (*temporary, *runs.glob("*"))}


def living(process: psutil.Process) -> bool:
    """Whether a process goes on; one that nobody has reaped yet has ended, as has one that went while it was asked."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, byte for byte; of a link where it leads."""
    return {
        path.name: os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes() for path in folder.glob("*")
    }


def targets(script: Mapping[str, str]) -> frozenset[str]:
    """The quants that a script's faults are meant for; none where one of them is meant for every case."""
    faults = [one.split("@", 2) for one in script.get("fault", "").split(";") if one]
    if any(len(fault) < 3 for fault in faults):
        return frozenset()
    return frozenset([*(fault[2] for fault in faults), *filter(None, [script.get("at_start", "")])])
