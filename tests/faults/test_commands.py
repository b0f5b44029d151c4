"""The `rwkvperf` command where its streams, its folder or its disk are not what a program hopes for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_rwkvperf.reports import record as records
from tests.faults.scene import CHECKOUT
from tests.unit.building import make_record, make_run, recorded, report_record

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a shell's redirections, pipes and devices as POSIX has them")

RECORD = report_record(recorded(make_record(*(make_run(pp16=[10**7, 10**7 + 9]) for _ in range(3)))))
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text(records.dumps(RECORD), encoding="utf-8")
    return tmp_path


def told(folder: Path, line: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """What a shell's command line gives, in which `rwkvperf` is the command."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "XDG_CACHE_HOME": str(folder / "cache"), **variables}
    script = f'rwkvperf() {{ "{sys.executable}" -m pytest_rwkvperf.cli "$@"; }}\n{line}'
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def test_whoever_reads_may_go(folder: Path) -> None:
    done = told(folder, "rwkvperf report --schema | head -n 1; exit ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == (b"{\n", b"")


@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_keep_no_command_from_its_work(folder: Path, streams: str) -> None:
    done = told(folder, f"rwkvperf merge run.json -o fleet.json --save-baseline {streams}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads((folder / "fleet.json").read_text("utf-8"))["runs"]
    (stored,) = (folder / "baselines").iterdir()
    assert json.loads(stored.read_text("utf-8"))["cases"], "what is shown went into no file that happened to be open"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "command", ["report run.json --format markdown", "report --schema", "compare run.json run.json"]
)
def test_a_full_disk_behind_stdout_is_a_sentence(folder: Path, command: str) -> None:
    done = told(folder, f"rwkvperf {command} > /dev/full")
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr


@pytest.mark.parametrize("variables", [ASCII, {"PYTHONIOENCODING": "cp1252"}], ids=["C", "cp1252"])
@pytest.mark.parametrize(
    "command",
    [
        "report run.json --format issue --language zh",
        "compare run.json run.json",
        "report nothing-ü.json --format json",
    ],
)
def test_letters_that_the_locale_lacks_are_no_crash(folder: Path, command: str, variables: dict[str, str]) -> None:
    done = told(folder, f"rwkvperf {command}", **variables)
    assert done.returncode == (1 if "nothing" in command else 0)
    assert done.stdout or done.stderr


def test_a_program_gets_a_report_in_utf_8_whatever_the_locale(folder: Path) -> None:
    text = records.dumps(RECORD).replace('"Model of processor"', '"Prozessor ü 龙"')
    (folder / "run.json").write_text(text, encoding="utf-8")
    done = told(folder, "rwkvperf report run.json --format json", **ASCII)
    assert json.loads(done.stdout)["fingerprint"]["cpu"] == "Prozessor ü 龙"


@pytest.mark.parametrize(
    "command", ["merge ../run.json --save-baseline", "history add history.db ../run.json", "synth nano"]
)
def test_a_folder_that_is_gone_is_a_sentence(folder: Path, command: str) -> None:
    command = command.replace("..", str(folder))
    done = told(folder, f"mkdir gone && cd gone && rmdir ../gone && rwkvperf {command}")
    assert done.returncode == 1
    assert b"No such file or directory" in done.stdout + done.stderr


def test_a_pipe_gets_the_report_and_stays_a_pipe(folder: Path) -> None:
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    done = told(folder, "timeout 20 cat pipe > got & rwkvperf report run.json --format json -o pipe; wait")
    assert done.returncode == 0, done.stderr
    assert pipe.is_fifo()
    assert (folder / "got").read_text("utf-8") == records.dumps(RECORD)


def test_a_device_stays_one(folder: Path) -> None:
    link = folder / "stdout"
    link.symlink_to("/dev/stdout")
    done = told(folder, "rwkvperf report run.json --format json -o stdout | cat")
    assert done.returncode == 0, done.stderr
    assert link.is_symlink()
    assert done.stdout.decode() == records.dumps(RECORD) + "stdout\n"
