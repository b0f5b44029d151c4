"""Whole runs that are interrupted, killed, flooded, refused by the disk, or that save at the same time."""

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
from tests.faults.savers import HOLDER
from tests.faults.scene import CHECKOUT, TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.scene import Scene, Stage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals, /proc and tmpfs as Linux has them")

SECRETS = {
    "GITHUB_TOKEN": "ghp_" + "S3cr" * 9,
    "HF_TOKEN": "hf_" + "aBcD" * 8,
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "MY_PASSWORD": "correct horse battery staple",
}


def until(found: Callable[[], object], what: str, seconds: float = 300) -> None:
    """Wait for something."""
    limit = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < limit, what
        time.sleep(0.02)


def sending(number: signal.Signals, scene: Scene) -> Callable[[subprocess.Popen[str]], None]:
    """Signal the run as soon as its first fault has happened."""

    def send(process: subprocess.Popen[str]) -> None:
        until(lambda: any(scene.backstage.glob("mark-*")), "the fault never happened")
        time.sleep(0.2)
        scene.happened = time.monotonic()
        process.send_signal(number)

    return send


@pytest.mark.parametrize("phase", ["versions", "open", "clear", "decode"])
def test_ctrl_c_ends_a_run_in_any_phase_and_leaves_nothing(stage: Stage, phase: str) -> None:
    scene = stage()
    quant = "" if phase == "versions" else "@fp16"
    seen = scene.run(
        "--rwkv-save-baseline", "--rwkv-report=issue.md",
        fault=f"sleep@{phase}{quant}", meanwhile=sending(signal.SIGINT, scene),
    )  # fmt: skip
    assert seen.code == pytest.ExitCode.INTERRUPTED, seen.text
    assert "KeyboardInterrupt" in seen.text
    assert "Nothing got slower" not in seen.text


@pytest.mark.parametrize("phase", ["versions", "decode"])
def test_a_cancelled_jobs_sigterm_ends_a_run_as_ctrl_c_does(stage: Stage, phase: str) -> None:
    scene = stage()
    send = sending(signal.SIGTERM, scene)

    def twice(process: subprocess.Popen[str]) -> None:
        send(process)
        with contextlib.suppress(ProcessLookupError):  # as a runner that signals the group and then its leader
            os.kill(process.pid, signal.SIGTERM)

    quant = "" if phase == "versions" else "@int8"
    seen = scene.run(
        "--rwkv-quant=fp16,int8", "--rwkv-save-baseline", "--rwkv-report=run.json",
        fault=f"sleep@{phase}{quant}", meanwhile=twice, saves=phase == "decode",
    )  # fmt: skip
    assert seen.code == pytest.ExitCode.INTERRUPTED, seen.text
    assert "ended by SIGTERM" in seen.text
    record = scene.folder / "run.json"
    if phase == "versions":  # nothing was selected yet
        return
    told = json.loads(record.read_text("utf-8"))
    assert told["exit_status"] == pytest.ExitCode.INTERRUPTED
    measured, cut_off = told["cases"]
    assert measured["case"]["quant"] == "fp16"
    assert measured["measured"]["runs"]
    assert {one["verdict"] for one in measured["items"]} == {"PASS"}
    assert (cut_off["measured"], cut_off["items"][0]["reason"]) == (None, "the run ended before it")


def test_ctrl_c_while_another_session_has_the_device(stage: Stage) -> None:
    first, second = stage(), stage()
    holder = first.start(fault="sleep@decode@fp16")
    try:
        until(lambda: any(first.backstage.glob("mark-*")), "the holder never measured")
        told: list[str] = []

        def interrupt(process: subprocess.Popen[str]) -> None:
            assert process.stdout is not None
            while "waiting for cpu" not in "".join(told):
                told.append(process.stdout.readline())
                assert told[-1], "".join(told)
            second.happened = time.monotonic()
            process.send_signal(signal.SIGINT)

        seen = second.run("--rwkv-save-baseline", meanwhile=interrupt)
        assert f"waiting for cpu: another session measures on it (process {holder.pid} on " in "".join(told)
        assert seen.code == pytest.ExitCode.INTERRUPTED, seen.text
    finally:
        holder.send_signal(signal.SIGINT)
        holder.communicate(timeout=TIMEOUT)
    assert first.orphans() == []


def test_ctrl_c_while_a_save_waits_costs_the_save_alone(stage: Stage) -> None:
    scene = stage()
    elsewhere = {**scene.variables({}), "SCRIPTED_SCENE": ""}
    command = [sys.executable, "-c", HOLDER, str(scene.path)]
    with subprocess.Popen(command, env=elsewhere, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()

        def interrupt(process: subprocess.Popen[str]) -> None:
            run = psutil.Process(process.pid)
            queue = f"{scene.path.name}-"  # with the lock's own name behind it: whoever has that file open, waits
            until(
                lambda: any(queue in one.path and one.path.endswith(".queue") for one in run.open_files()),
                "the save never waited",
            )
            scene.happened = time.monotonic()
            process.send_signal(signal.SIGINT)

        try:
            seen = scene.run("--rwkv-save-baseline", "--rwkv-report=run.json", meanwhile=interrupt)
        finally:
            holder.kill()
    assert seen.code == pytest.ExitCode.INTERRUPTED, seen.text
    assert "interrupted while saving: the baseline is as it was, or has all of this run" in seen.sentence
    assert seen.text.count("PASS") >= 2
    assert len(json.loads((scene.folder / "run.json").read_text("utf-8"))["cases"]) == 1


def test_a_worker_that_heeds_nothing_dies_with_its_killed_parent(stage: Stage) -> None:
    scene = stage()
    seen = scene.run(fault="deaf@decode@fp16", meanwhile=sending(signal.SIGKILL, scene), killed=True)
    assert seen.code == -signal.SIGKILL
    after = stage().run()
    assert after.code == 0, "the killed run's lease is free"
    for path in map(Path, seen.left):
        age(path, 2 * 86400)
    assert seen.left
    scene.run("--collect-only")
    assert not any(Path(path).exists() for path in seen.left), "what a killed process cannot take away a later run does"


def age(path: Path, seconds: float) -> None:
    """Make something older than it is."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_killed_run_s_worker_folders_go_after_a_minute_and_a_living_run_s_stay(stage: Stage) -> None:
    killed, living, later = stage(), stage(), stage()
    for scene in (living, later):
        scene.temporary = killed.temporary
    seen = killed.run(fault="deaf@decode@fp16", meanwhile=sending(signal.SIGKILL, killed), killed=True)
    left = {*killed.temporary.glob("rwkvperf-worker-*")}
    assert left
    for path in map(Path, seen.left):
        if path not in left:  # the run's own folder, which goes after a day
            age(path, 2 * 86400)
    # Its worker is asked for versions only: it needs no device, so the runs after it wait for none.
    holder = living.start(fault="sleep@versions")
    try:
        until(lambda: any(living.backstage.glob("mark-*")), "the living run has no worker")
        used = {*killed.temporary.glob("rwkvperf-worker-*")} - left
        assert used
        for folder in left:
            age(folder, 0)
        later.run("--collect-only")
        assert all(folder.exists() for folder in left), "too young: an owner might be about to lock its folder"
        for folder in left | used:
            age(folder, 90)
        seen = later.run("--collect-only")
        assert seen.code == 0, seen.text
        assert {*killed.temporary.glob("rwkvperf-worker-*")} == used
    finally:
        holder.send_signal(signal.SIGINT)
        holder.communicate(timeout=TIMEOUT)
    assert not any(folder.exists() for folder in used)


def test_two_gigabytes_on_stdout_are_measured_all_the_same(stage: Stage) -> None:
    seen = stage().run("--rwkv-quant=int8,fp16", "--rwkv-workload=pp16", fault="flood@open@int8")
    assert seen.code == 0, seen.text[-3000:]
    assert "xxxx" not in seen.text


def test_no_secret_reaches_a_worker_a_terminal_or_a_file(stage: Stage) -> None:
    scene = stage()
    files = ["--rwkv-report=record.json", "--junitxml=junit.xml", "--rwkv-save-baseline"]
    scene.extra = {**SECRETS, "RWKVPERF_PASS_ENV": "HF_TOKEN"}
    seen = scene.run("--rwkv-quant=int8,fp16", *files, fault="tell@decode@int8", saves=True)
    assert seen.code == 1
    assert "[HF_TOKEN]" in seen.text, "this one was passed by name"
    assert "GITHUB_TOKEN" not in seen.text
    assert "\x1b" not in seen.text
    written = [path.read_text("utf-8") for path in scene.folder.rglob("*") if path.is_file()]
    assert len(written) >= 3
    for text in (seen.text, *written):
        assert not [name for name, value in SECRETS.items() if value in text]
        assert "eyJhbGci" not in text


def test_two_sessions_that_save_at_once_are_both_stored(stage: Stage) -> None:
    one, other = stage(), stage()
    folder = f"--rwkv-baseline-dir={one.path.parent}"
    told: list[str] = []
    with other.start("--rwkv-save-baseline", folder) as second:

        def see_it_end(_: subprocess.Popen[str]) -> None:
            """What the second still has in hand must not be looked at as what the first has left."""
            told.append(second.communicate(timeout=TIMEOUT)[0])

        seen = one.run("--rwkv-save-baseline", folder, saves=True, meanwhile=see_it_end)
    assert (seen.code, second.returncode, other.orphans()) == (0, 0, []), seen.text + told[0]
    cases = json.loads(one.path.read_text("utf-8"))["cases"].values()
    (sessions,) = (case["sessions"] for case in cases if case["case"]["device"] == "cpu")
    assert len(sessions) == 3
    assert [path.name for path in one.path.parent.iterdir()] == [one.path.name]


def test_a_baseline_on_a_full_disk_is_a_sentence_and_the_verdicts_are_shown(stage: Stage, tmp_path: Path) -> None:
    scene = stage()
    with small_disk(tmp_path, "32k"):
        (tmp_path / scene.path.name).write_bytes(scene.path.read_bytes())
        fill(tmp_path / "filler")
        seen = scene.run("--rwkv-save-baseline", f"--rwkv-baseline-dir={tmp_path}")
    assert seen.code == 1
    assert "not saved: baseline " in seen.sentence
    assert "No space left on device; it was left as it is" in seen.sentence
    assert "PASS" in seen.text


def test_a_cache_on_a_full_disk_is_a_sentence(stage: Stage, tmp_path: Path) -> None:
    scene = stage()
    with small_disk(tmp_path, "1m"):
        scene.extra = {"XDG_CACHE_HOME": str(tmp_path)}
        seen = scene.run()
    assert seen.code == 1
    assert "ModelError: writing " in seen.sentence
    assert "are free; free some space" in seen.sentence
    assert f"{CHECKOUT}{os.sep}pytest_rwkvperf" not in seen.text, "no traceback"


@pytest.mark.parametrize("content", ["truncated", "newer"])
def test_a_baseline_that_cannot_be_used_is_a_usage_error_that_names_it(stage: Stage, content: str) -> None:
    scene = stage()
    whole = scene.path.read_text("utf-8")
    text = whole[: len(whole) // 2] if content == "truncated" else whole.replace('"schema": 1', '"schema": 99')
    scene.path.write_text(text, "utf-8")
    seen = scene.run("--rwkv-save-baseline=replace")
    assert seen.code == pytest.ExitCode.USAGE_ERROR
    assert str(scene.path) in seen.text
    assert ("is not valid JSON" if content == "truncated" else "upgrade pytest-rwkvperf") in seen.sentence
