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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHECKOUT = Path(__file__).parents[2]
SCRIPTED = CHECKOUT / "tests" / "scripted"
TIMEOUT = 300.0
GOOD = "fp16"

PLUGIN = """
import json, os, time
from pathlib import Path
from pytest_rwkvperf.machine import usage
from pytest_rwkvperf.measure.probes import Prober
from pytest_rwkvperf.worker import parent

# What else the machine does while the tests run is not what they are about, and would widen every bound.
usage.crowding = lambda *_: 0.0
Prober._time = lambda *_: 70_000
parent.SAMPLE_SECONDS = float(os.environ["SCENE_DEADLINE"])
parent._GRACE_SECONDS = 0.5

def pytest_runtest_logstart(nodeid):
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
    tests: tuple[Test, ...]
    marks: dict[str, float]
    """When each quant's fault happened, seconds since 1970."""
    orphans: list[str]
    left: list[str]
    """Files in the temporary folder, in the cache's folder for runs, and beside the baseline."""
    baseline_untouched: bool

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
        scene = Scene(self, deadline=120)  # the engine's right answers are computed once, now
        seen = scene.run("--rwkv-save-baseline", "--rwkv-device=cpu,spare:0")
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

    def __init__(self, stage: Stage, deadline: float = 6.0) -> None:
        self.name = uuid.uuid4().hex[:12]
        self.deadline = deadline
        self.extra: dict[str, str] = {}
        """Further variables of the run's environment."""
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
        plugins = ("scene_plugin", "no:cacheprovider", "no:hypothesispytest", "no:randomly")
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
            "SCENE_DEADLINE": str(self.deadline),
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
        timeout: float = TIMEOUT,
        **script: str,
    ) -> Seen:
        """A whole run of at most `timeout` seconds; `meanwhile` is called while it goes on."""
        before = self.path.read_bytes() if self.path.exists() else None
        started = time.monotonic()
        with self.start(*arguments, **script) as process:
            try:
                if meanwhile is not None:
                    meanwhile(process)
                text, _ = process.communicate(timeout=timeout)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        seconds = time.monotonic() - started
        untouched = (self.path.read_bytes() if self.path.exists() else None) == before
        marks = {
            path.name.removeprefix("mark-"): float(path.read_text(encoding="ascii") or "nan")
            for path in self.backstage.glob("mark-*")
        }
        return Seen(process.returncode, text, seconds, self._tests(), marks, self.orphans(), self._left(), untouched)

    def _tests(self) -> tuple[Test, ...]:
        """The tests that were called, or failed before."""
        path = self.backstage / "reports"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        told = [json.loads(line) for line in lines]
        kept = [one for one in told if one["when"] == "call" or one["outcome"] != "passed"]
        return tuple(Test(one["id"], one["outcome"], one["text"], one["time"]) for one in kept)

    def orphans(self) -> list[str]:
        """Processes of the scene that are still there half a second after its end."""
        limit = time.monotonic() + 0.5
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

    def _left(self) -> list[str]:
        runs = self._stage.folder / "cache" / "pytest-rwkvperf" / "runs"
        beside = [path for path in self.path.parent.glob("*") if path != self.path]
        # pytest's own folder, of which it keeps the last three
        temporary = [path for path in self.temporary.iterdir() if not path.name.startswith("pytest-of-")]
        return [str(path) for path in (*temporary, *runs.glob("*"), *beside)]
