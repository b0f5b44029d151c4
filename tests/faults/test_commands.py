"""The `rwkvperf` command with closed streams, missing folders, full disks and signals."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from pytest_rwkvperf.models import derive
from pytest_rwkvperf.models.shapes import Shape
from pytest_rwkvperf.models.synthetic import SyntheticModel
from pytest_rwkvperf.store import record as records
from tests.faults.sandbox import CHECKOUT, STOP_SECONDS, TIMEOUT, allowed
from tests.unit.building import make_record, make_run, recorded, report_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.sandbox import SandboxFactory

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX redirections, pipes and devices")

RECORD = report_record(recorded(make_record(*(make_run(pp16=[10**7, 10**7 + 9]) for _ in range(3)))))
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text(records.dumps(RECORD), encoding="utf-8")
    return tmp_path


def shell(folder: Path, line: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `rwkvperf` is the command."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "XDG_CACHE_HOME": str(folder / "cache"), **variables}
    script = f'rwkvperf() {{ "{sys.executable}" -m pytest_rwkvperf.cli "$@"; }}\n{line}'
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def test_a_reader_may_close_the_pipe(folder: Path) -> None:
    done = shell(folder, "rwkvperf report --schema | head -n 1; exit ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == (b"{\n", b"")


@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_command_works_with_closed_streams(folder: Path, streams: str) -> None:
    done = shell(folder, f"rwkvperf merge run.json -o fleet.json --save-baseline {streams}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads((folder / "fleet.json").read_text("utf-8"))["runs"]
    (stored,) = (folder / "baselines").iterdir()
    assert json.loads(stored.read_text("utf-8"))["cases"], "a file got a closed stream's descriptor, and so its output"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "command", ["report run.json --format markdown", "report --schema", "compare run.json run.json"]
)
def test_a_full_disk_behind_stdout_is_an_error(folder: Path, command: str) -> None:
    done = shell(folder, f"rwkvperf {command} > /dev/full")
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr


@pytest.mark.parametrize("variables", [ASCII, {"PYTHONIOENCODING": "cp1252"}], ids=["C", "cp1252"])
@pytest.mark.parametrize(
    "command",
    ["report run.json --format issue --language zh", "compare run.json run.json", "report ü.json --format json"],
)
def test_characters_outside_the_locale_do_not_crash(folder: Path, command: str, variables: dict[str, str]) -> None:
    done = shell(folder, f"rwkvperf {command}", **variables)
    assert done.returncode == (1 if "ü" in command else 0)
    assert done.stdout or done.stderr


def test_a_pipe_gets_utf_8_in_any_locale(folder: Path) -> None:
    text = records.dumps(RECORD).replace('"Model of processor"', '"Prozessor ü 龙"')
    (folder / "run.json").write_text(text, encoding="utf-8")
    done = shell(folder, "rwkvperf report run.json --format json", **ASCII)
    assert json.loads(done.stdout)["fingerprint"]["cpu"] == "Prozessor ü 龙"


@pytest.mark.parametrize(
    "command", ["merge ../run.json --save-baseline", "history add history.db ../run.json", "synth nano"]
)
def test_a_removed_working_folder_is_an_error(folder: Path, command: str) -> None:
    command = command.replace("..", str(folder))
    done = shell(folder, f"mkdir gone && cd gone && rmdir ../gone && rwkvperf {command}")
    assert done.returncode == 1
    assert b"No such file or directory" in done.stdout + done.stderr


def test_a_named_pipe_as_output_stays_a_pipe(folder: Path) -> None:
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    done = shell(folder, "timeout 20 cat pipe > got & rwkvperf report run.json --format json -o pipe; wait")
    assert done.returncode == 0, done.stderr
    assert pipe.is_fifo()
    assert (folder / "got").read_text("utf-8") == records.dumps(RECORD)


def test_a_device_as_output_stays_a_device(folder: Path) -> None:
    link = folder / "stdout"
    link.symlink_to("/dev/stdout")
    done = shell(folder, "rwkvperf report run.json --format json -o stdout | cat")
    assert done.returncode == 0, done.stderr
    assert link.is_symlink()
    assert done.stdout.decode() == records.dumps(RECORD) + "stdout\n"


MAIN = "import sys; from pytest_rwkvperf.cli.entry import main; sys.exit(main())"


def interrupted(
    folder: Path, command: str, ready: Callable[[subprocess.Popen[str]], object], **variables: str
) -> tuple[int, str]:
    """Send a command Ctrl-C, as a terminal does, once it is `ready`; returns its exit code and output."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "XDG_CACHE_HOME": str(folder / "cache"), **variables}
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, *command.split()], cwd=folder, env=environment, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        limit = time.monotonic() + TIMEOUT
        while not ready(process):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < limit
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        try:
            text, _ = process.communicate(timeout=allowed(STOP_SECONDS))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert "Traceback" not in text, text[-4000:]
    return process.returncode, text


def reads(pipe: Path, process: subprocess.Popen[str]) -> bool:
    """Whether a process waits for input from a pipe, which stays open from then on."""
    try:
        os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    reader, asleep = psutil.Process(process.pid), 0
    while asleep < 5:  # between opening and reading, Python handles no signal
        asleep = asleep + 1 if reader.status() == psutil.STATUS_SLEEPING else 0
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    "command",
    [
        "report pipe -o out.md --format markdown",
        "compare run.json pipe",
        "merge run.json pipe -o out.md --save-baseline",
        "history add new.db pipe",
    ],
)
def test_ctrl_c_while_a_command_reads_leaves_nothing(folder: Path, command: str) -> None:
    os.mkfifo(folder / "pipe")
    before = {*folder.iterdir()}
    code, text = interrupted(folder, command, lambda process: reads(folder / "pipe", process))
    assert (code, text) == (130, "rwkvperf: interrupted; nothing was left behind\n")
    assert {*folder.iterdir()} - {folder / "cache"} == before


@pytest.mark.parametrize("command", ["synth 0.1b --output new.st", "convert synthetic:0.1b new.gguf"])
def test_ctrl_c_while_a_model_is_written_leaves_nothing(folder: Path, command: str) -> None:
    before = {*folder.iterdir()}
    code, text = interrupted(folder, command, lambda _: len({*folder.iterdir()} - before - {folder / "cache"}))
    assert code == 130, text
    assert {*folder.iterdir()} - {folder / "cache"} == before


def test_ctrl_c_while_the_history_is_locked(folder: Path) -> None:
    assert shell(folder, "rwkvperf history add history.db run.json").returncode == 0
    before = (folder / "history.db").read_bytes()  # closing the file later would release our locks
    other = sqlite3.connect(folder / "history.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    def waits(process: subprocess.Popen[str]) -> bool:
        is_open = any(file.path == str(folder / "history.db") for file in psutil.Process(process.pid).open_files())
        time.sleep(0.3 if is_open else 0.1)
        return is_open

    def ended(command: str) -> tuple[int, str]:
        return interrupted(folder, f"history {command}", waits)

    commands = ["list history.db", "trend history.db -o page.html", "changes history.db", "send history.db"]
    commands.append("record history.db 0")
    with ThreadPoolExecutor(len(commands)) as pool:  # they mostly wait
        results = dict(zip(commands, pool.map(ended, commands), strict=True))
    other.close()
    assert results == dict.fromkeys(commands, (130, "rwkvperf: interrupted; nothing was left behind\n"))
    assert (folder / "history.db").read_bytes() == before
    assert {item.name for item in folder.iterdir()} == {"run.json", "history.db"}


def path_with_module(module: str, lines: str, folder: Path) -> str:
    """A PYTHONPATH on which a module has only these lines."""
    (folder / "first").mkdir()
    (folder / "first" / f"{module}.py").write_text(lines, "utf-8")
    return os.pathsep.join([str(folder / "first"), str(CHECKOUT)])


SLOW = "import time\nopen({mark!r}, 'w').close()\ntime.sleep(600)\n"


def test_ctrl_c_during_the_imports_prints_no_traceback(folder: Path) -> None:
    mark = folder / "loading"
    path = path_with_module("rich", SLOW.format(mark=str(mark)), folder)
    code, text = interrupted(folder, "inspect x.st", lambda _: mark.exists(), PYTHONPATH=path)
    assert (code, text) == (130, "rwkvperf: interrupted; nothing was left behind\n")


def test_ctrl_c_during_inspect_ends_the_worker(folder: Path) -> None:
    shape = Shape(layers=2, width=64, rank_w=16, rank_a=24, rank_v=8, rank_g=40, vocabulary=128)
    derive.write(SyntheticModel("tiny", shape), folder / "x.pth", "pth", "x", lambda *_: None)
    mark = folder / "loading"
    path = path_with_module("torch", SLOW.format(mark=str(mark)), folder)
    code, text = interrupted(folder, "inspect x.pth", lambda _: mark.exists(), PYTHONPATH=path)
    assert (code, text.splitlines()[-1]) == (130, "rwkvperf: interrupted; nothing was left behind")


PIP = """
import sys, time
if "versions" in sys.argv:
    print("Available versions: 1.1, 1.0")
    sys.exit()
try:
    open({mark!r}, "w").close()
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(0.7)
    with open({mark!r}, "a") as file:
        file.write("clean")
"""


def test_ctrl_c_during_an_installation_lets_pip_clean_up(folder: Path) -> None:
    mark = folder / "installing"
    path = path_with_module("pip", PIP.format(mark=str(mark)), folder)
    command = "bisect rwkv 1.0..1.1"
    code, text = interrupted(folder, command, lambda _: mark.exists(), PYTHONPATH=path)
    assert (code, text.splitlines()[-1]) == (130, "rwkvperf: interrupted; nothing was left behind")
    assert mark.read_text("utf-8") == "clean"
    assert [item.name for item in (folder / "cache").rglob("bisect/*") if item.is_dir()] == []


RAY = """
import time
from types import SimpleNamespace as Some

def init(**_): pass
def nodes(): return [dict(Alive=True, Resources=dict(CPU=1.0), NodeManagerAddress="10.0.0.1", NodeID="a")]
def remote(**_): return lambda _function: Some(remote=lambda *_: "task")
def shutdown(): open({ended!r}, "w").close()
def wait(waiting, **_):
    open({mark!r}, "w").close()
    time.sleep(600)
"""
STRATEGIES = """
import sys
from types import ModuleType
for name in ("ray.util", "ray.util.scheduling_strategies"):
    sys.modules[name] = ModuleType(name)
sys.modules["ray.util.scheduling_strategies"].NodeAffinitySchedulingStrategy = lambda **_: None
"""


def test_ctrl_c_while_a_fleet_measures_leaves_the_cluster(folder: Path) -> None:
    """Ray ends a driver's tasks when the driver leaves; a module stands in for Ray here."""
    mark, ended = folder / "measuring", folder / "left"
    path = path_with_module("ray", STRATEGIES + RAY.format(mark=str(mark), ended=str(ended)), folder)
    command = "fleet --address=auto -o fleet.md -- --rwkv-backend=scripted"
    code, text = interrupted(folder, command, lambda _: mark.exists(), PYTHONPATH=path)
    assert (code, text) == (130, "rwkvperf: interrupted; nothing was left behind\n")
    assert ended.exists()
    assert not (folder / "fleet.md").exists()


def test_ctrl_c_during_ab_lets_pytest_clean_up(new_sandbox: SandboxFactory, folder: Path) -> None:
    sandbox = new_sandbox()
    variables = sandbox.variables({"fault": "sleep@open"})
    command = "ab --backend scripted -- --rwkv-quant=fp16 --rwkv-workload=pp16"
    code, text = interrupted(
        folder, command, lambda _: [*sandbox.root.glob("mark-*")], **variables, SCRIPTED_CALM=str(folder / "calm")
    )
    assert code == 130
    assert "rwkvperf: interrupted; nothing was left behind" in text
    assert sandbox.orphans() == []
    assert [path for path in sandbox.temporary.iterdir() if not path.name.startswith("pytest-of-")] == []


WAITING = """
import sys
from pytest_rwkvperf.cli import inspect
from pytest_rwkvperf.cli.main import main
from pytest_rwkvperf.core import subprocesses
child = "print('here', flush=True); import time; time.sleep(600)"
inspect.run = lambda *_: subprocesses.run([sys.executable, "-c", child])
sys.exit(main(["inspect", "x.st"]))
"""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_command_sooner(second: signal.Signals) -> None:
    command = [sys.executable, "-c", WAITING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)  # subprocess itself waits for a quarter of a second
        process.send_signal(second)
        out, err = process.communicate(timeout=allowed(STOP_SECONDS))
    assert (process.returncode, out, err) == (130, "", "rwkvperf: interrupted; nothing was left behind\n")
