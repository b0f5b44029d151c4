"""Whole runs that are interrupted, killed, flooded with output, out of disk space, or save at the same time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.faults.disks import fill, small_disk
from tests.faults.sandbox import CHECKOUT, TIMEOUT
from tests.faults.savers import HOLDER

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.sandbox import Sandbox, SandboxFactory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's signals, /proc and tmpfs")

SECRETS = {
    "GITHUB_TOKEN": "ghp_" + "S3cr" * 9,
    "HF_TOKEN": "hf_" + "aBcD" * 8,
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "MY_PASSWORD": "correct horse battery staple",
}


def wait_until(condition: Callable[[], object], otherwise: str, seconds: float = 300) -> None:
    """Wait for a condition, and fail after `seconds`."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, otherwise
        time.sleep(0.02)


def sending(number: signal.Signals, sandbox: Sandbox) -> Callable[[subprocess.Popen[str]], None]:
    """Send a signal to the run as soon as its first fault has happened."""

    def send(process: subprocess.Popen[str]) -> None:
        wait_until(lambda: any(sandbox.root.glob("mark-*")), "the fault never happened")
        time.sleep(0.2)
        sandbox.timed_from = time.monotonic()
        process.send_signal(number)

    return send


@pytest.mark.parametrize("phase", ["versions", "open", "clear", "decode"])
def test_ctrl_c_ends_a_run_in_any_phase_and_leaves_nothing(new_sandbox: SandboxFactory, phase: str) -> None:
    sandbox = new_sandbox()
    quant = "" if phase == "versions" else "@fp16"
    result = sandbox.run(
        "--rwkv-save-baseline", "--rwkv-report=issue.md",
        fault=f"sleep@{phase}{quant}", meanwhile=sending(signal.SIGINT, sandbox),
    )  # fmt: skip
    assert result.code == pytest.ExitCode.INTERRUPTED, result.text
    assert "KeyboardInterrupt" in result.text
    assert "Nothing got slower" not in result.text


@pytest.mark.parametrize("phase", ["versions", "decode"])
def test_sigterm_ends_a_run_as_ctrl_c_does(new_sandbox: SandboxFactory, phase: str) -> None:
    sandbox = new_sandbox()
    send = sending(signal.SIGTERM, sandbox)

    def twice(process: subprocess.Popen[str]) -> None:
        send(process)
        with contextlib.suppress(ProcessLookupError):  # as CI runners signal the group and then its leader
            os.kill(process.pid, signal.SIGTERM)

    quant = "" if phase == "versions" else "@int8"
    result = sandbox.run(
        "--rwkv-quant=fp16,int8", "--rwkv-save-baseline", "--rwkv-report=run.json",
        fault=f"sleep@{phase}{quant}", meanwhile=twice, saves=phase == "decode",
    )  # fmt: skip
    assert result.code == pytest.ExitCode.INTERRUPTED, result.text
    assert "ended by SIGTERM" in result.text
    record = sandbox.folder / "run.json"
    if phase == "versions":  # nothing was selected yet
        return
    written = json.loads(record.read_text("utf-8"))
    assert written["exit_status"] == pytest.ExitCode.INTERRUPTED
    measured, cut_off = written["cases"]
    assert measured["case"]["quant"] == "fp16"
    assert measured["measured"]["runs"]
    assert {item["verdict"] for item in measured["items"]} == {"PASS"}
    assert (cut_off["measured"], cut_off["items"][0]["reason"]) == (None, "the run ended before it")


def test_ctrl_c_while_another_session_has_the_device(new_sandbox: SandboxFactory) -> None:
    first, second = new_sandbox(), new_sandbox()
    holder = first.start(fault="sleep@decode@fp16")
    try:
        wait_until(lambda: any(first.root.glob("mark-*")), "the holder never measured")
        lines: list[str] = []

        def interrupt(process: subprocess.Popen[str]) -> None:
            assert process.stdout is not None
            while "waiting for cpu" not in "".join(lines):
                lines.append(process.stdout.readline())
                assert lines[-1], "".join(lines)
            second.timed_from = time.monotonic()
            process.send_signal(signal.SIGINT)

        result = second.run("--rwkv-save-baseline", meanwhile=interrupt)
        assert f"waiting for cpu: another session measures on it (process {holder.pid} on " in "".join(lines)
        assert result.code == pytest.ExitCode.INTERRUPTED, result.text
    finally:
        holder.send_signal(signal.SIGINT)
        holder.communicate(timeout=TIMEOUT)
    assert first.orphans() == []


def test_ctrl_c_while_a_save_waits_loses_only_the_save(new_sandbox: SandboxFactory) -> None:
    sandbox = new_sandbox()
    elsewhere = {**sandbox.variables({}), "SCRIPTED_SANDBOX": ""}
    command = [sys.executable, "-c", HOLDER, str(sandbox.path)]
    with subprocess.Popen(command, env=elsewhere, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()

        def interrupt(process: subprocess.Popen[str]) -> None:
            run = psutil.Process(process.pid)
            queue = f"{sandbox.path.name}-"  # a process that has the lock's queue open is waiting
            wait_until(
                lambda: any(queue in file.path and file.path.endswith(".queue") for file in run.open_files()),
                "the save never waited",
            )
            sandbox.timed_from = time.monotonic()
            process.send_signal(signal.SIGINT)

        try:
            result = sandbox.run("--rwkv-save-baseline", "--rwkv-report=run.json", meanwhile=interrupt)
        finally:
            holder.kill()
    assert result.code == pytest.ExitCode.INTERRUPTED, result.text
    assert "interrupted while saving: the baseline is as it was, or has all of this run" in result.sentence
    assert result.text.count("PASS") >= 2
    assert len(json.loads((sandbox.folder / "run.json").read_text("utf-8"))["cases"]) == 1


def test_a_worker_that_ignores_signals_dies_with_its_killed_parent(new_sandbox: SandboxFactory) -> None:
    sandbox = new_sandbox()
    result = sandbox.run(fault="deaf@decode@fp16", meanwhile=sending(signal.SIGKILL, sandbox), killed=True)
    assert result.code == -signal.SIGKILL
    after = new_sandbox().run()
    assert after.code == 0, "the killed run's lease is free"
    for path in map(Path, result.left):
        age(path, 2 * 86400)
    assert result.left
    sandbox.run("--collect-only")
    assert not any(Path(path).exists() for path in result.left), "a later run removes what a killed one left"


def age(path: Path, seconds: float) -> None:
    """Set a path's time back."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_worker_folders_of_a_killed_run_are_removed_after_a_minute(new_sandbox: SandboxFactory) -> None:
    killed, running, later = new_sandbox(), new_sandbox(), new_sandbox()
    for sandbox in (running, later):
        sandbox.temporary = killed.temporary
    result = killed.run(fault="deaf@decode@fp16", meanwhile=sending(signal.SIGKILL, killed), killed=True)
    left = {*killed.temporary.glob("rwkvperf-worker-*")}
    assert left
    for path in map(Path, result.left):
        if path not in left:  # the run's own folder, which goes after a day
            age(path, 2 * 86400)
    # Its worker is asked for versions only: it needs no device, so the runs after it wait for none.
    holder = running.start(fault="sleep@versions")
    try:
        wait_until(lambda: any(running.root.glob("mark-*")), "the running run has no worker")
        used = {*killed.temporary.glob("rwkvperf-worker-*")} - left
        assert used
        for folder in left:
            age(folder, 0)
        later.run("--collect-only")
        assert all(folder.exists() for folder in left), "too young: the owner may not have locked it yet"
        for folder in left | used:
            age(folder, 90)
        result = later.run("--collect-only")
        assert result.code == 0, result.text
        assert {*killed.temporary.glob("rwkvperf-worker-*")} == used
    finally:
        holder.send_signal(signal.SIGINT)
        holder.communicate(timeout=TIMEOUT)
    assert not any(folder.exists() for folder in used)


def test_two_gigabytes_on_stdout_do_not_disturb_a_run(new_sandbox: SandboxFactory) -> None:
    result = new_sandbox().run("--rwkv-quant=int8,fp16", "--rwkv-workload=pp16", fault="flood@open@int8")
    assert result.code == 0, result.text[-3000:]
    assert "xxxx" not in result.text


def test_no_secret_reaches_a_worker_a_terminal_or_a_file(new_sandbox: SandboxFactory) -> None:
    sandbox = new_sandbox()
    files = ["--rwkv-report=record.json", "--junitxml=junit.xml", "--rwkv-save-baseline"]
    sandbox.extra = {**SECRETS, "RWKVPERF_PASS_ENV": "HF_TOKEN"}
    result = sandbox.run("--rwkv-quant=int8,fp16", *files, fault="print-secrets@decode@int8", saves=True)
    assert result.code == 1
    assert "[HF_TOKEN]" in result.text, "RWKVPERF_PASS_ENV passes this variable"
    assert "GITHUB_TOKEN" not in result.text
    assert "\x1b" not in result.text
    written = [path.read_text("utf-8") for path in sandbox.folder.rglob("*") if path.is_file()]
    assert len(written) >= 3
    for text in (result.text, *written):
        assert not [name for name, value in SECRETS.items() if value in text]
        assert "eyJhbGci" not in text


def test_two_sessions_that_save_at_once_are_both_stored(new_sandbox: SandboxFactory) -> None:
    first, other = new_sandbox(), new_sandbox()
    folder = f"--rwkv-baseline-dir={first.path.parent}"
    output: list[str] = []
    with other.start("--rwkv-save-baseline", folder) as second:

        def wait_for_second(_: subprocess.Popen[str]) -> None:
            """Files that the second run still uses must not count as left by the first."""
            output.append(second.communicate(timeout=TIMEOUT)[0])

        result = first.run("--rwkv-save-baseline", folder, saves=True, meanwhile=wait_for_second)
    assert (result.code, second.returncode, other.orphans()) == (0, 0, []), result.text + output[0]
    cases = json.loads(first.path.read_text("utf-8"))["cases"].values()
    (sessions,) = (case["sessions"] for case in cases if case["case"]["device"] == "cpu")
    assert len(sessions) == 3
    assert [path.name for path in first.path.parent.glob("*-*.json")] == [first.path.name]


def test_a_baseline_on_a_full_disk_is_an_error_beside_the_verdicts(new_sandbox: SandboxFactory, tmp_path: Path) -> None:
    sandbox = new_sandbox()
    with small_disk(tmp_path, "32k"):
        (tmp_path / sandbox.path.name).write_bytes(sandbox.path.read_bytes())
        fill(tmp_path / "filler")
        result = sandbox.run("--rwkv-save-baseline", f"--rwkv-baseline-dir={tmp_path}")
    assert result.code == 1
    assert "not saved: baseline " in result.sentence
    assert "No space left on device; it was left as it is" in result.sentence
    assert "PASS" in result.text


def test_a_cache_on_a_full_disk_is_an_error(new_sandbox: SandboxFactory, tmp_path: Path) -> None:
    sandbox = new_sandbox()
    with small_disk(tmp_path, "1m"):
        sandbox.extra = {"XDG_CACHE_HOME": str(tmp_path)}
        result = sandbox.run()
    assert result.code == 1
    assert "ModelError: writing " in result.sentence
    assert "are free; free some space" in result.sentence
    assert f"{CHECKOUT}{os.sep}pytest_rwkvperf" not in result.text, "no traceback"
