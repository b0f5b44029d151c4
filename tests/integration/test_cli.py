"""The rwkvperf command as a process of its own, with `.pth` files read by a worker."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
import zipfile
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.unit.worker.conftest import gone

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "pytest_rwkvperf.cli"]
AT_ONCE = """
import sys
from pytest_rwkvperf.cli.main import main
from pytest_rwkvperf.models import streams

streams._SECONDS_BETWEEN = 0
sys.exit(main(sys.argv[1:]))
"""
"""The command without the third of a second before the first progress: a small model is written sooner."""


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nano 模型") / "nano.pth"
    subprocess.run([*COMMAND, "synth", "nano", "--output", str(path)], check=True, capture_output=True, timeout=300)
    return path


def run(*arguments: str | Path, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def content_hash(path: Path, cache: Path) -> str:
    done = run("inspect", path, cache=cache)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[-1]


@pytest.mark.engine("rwkv")
def test_a_pth_survives_the_other_formats(nano: Path, tmp_path: Path) -> None:
    path, hashes = nano, {content_hash(nano, tmp_path)}
    for name in ("a.gguf", "b.pth", "c.st"):
        done = run("convert", path, tmp_path / name, cache=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "values are exact" in done.stdout
        path = tmp_path / name
        hashes.add(content_hash(path, tmp_path))
    assert len(hashes) == 1


@pytest.mark.engine("rwkv")
def test_a_hostile_pth_is_refused_and_runs_nothing(nano: Path, tmp_path: Path) -> None:
    marker, hostile = tmp_path / "ran", tmp_path / "hostile.pth"
    call = f"cbuiltins\nexec\n(Vopen({str(marker)!r}, 'w').close()\ntR.".encode()
    with zipfile.ZipFile(nano) as source, zipfile.ZipFile(hostile, "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, call if entry.filename.endswith("data.pkl") else source.read(entry))
    for arguments in (("inspect", hostile), ("convert", hostile, tmp_path / "a.st")):
        done = run(*arguments, cache=tmp_path / "cache")
        assert (done.returncode, done.stdout) == (1, "")
        assert "hostile.pth" in done.stderr
        assert "'builtins.exec'" in done.stderr.splitlines()[-1]
    assert not marker.exists()
    assert not (tmp_path / "a.st").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is not a signal to one process there")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_no_file(number: signal.Signals, status: int, tmp_path: Path) -> None:
    target = tmp_path / "large.st"
    process = subprocess.Popen([*COMMAND, "synth", "0.4b", "--output", str(target)], stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 300
    while not list(tmp_path.glob(".large.st.*.tmp")):
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == status
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.engine("rwkv")
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is not a signal to one process there")
def test_ctrl_c_ends_the_worker_too(nano: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.gguf"
    process = subprocess.Popen([*COMMAND, "convert", str(nano), str(target)], stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 300
    children: list[psutil.Process] = []
    while not children:
        assert time.monotonic() < limit
        children = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "rwkvperf: interrupted; nothing was left behind"
    assert all(gone(child.pid) for child in children)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_a_terminal_gets_a_progress_bar(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-c", AT_ONCE, "synth", "nano", "--output", str(tmp_path / "a.st")],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    told = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:  # on Linux, when the other end has closed
            break
        if not block:
            break
        told += block
    out, _ = process.communicate(timeout=300)
    os.close(ours)
    assert process.returncode == 0
    assert b"writing synthetic nano as .st" in told
    assert b"%" in told
    assert out.decode().count("\n") == 1


def test_a_pipe_gets_one_line_per_step(tmp_path: Path) -> None:
    done = run("convert", "synthetic:nano", tmp_path / "a.gguf", cache=tmp_path)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.count("\n") == 1


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    st = tmp_path / "a.st"
    assert run("convert", "synthetic:nano", st, cache=tmp_path).returncode == 0
    command = [*COMMAND, "inspect", str(st), "--tensors"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
        assert process.wait(timeout=300) in {0, 1}
