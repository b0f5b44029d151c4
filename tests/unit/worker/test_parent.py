"""The parent's end of the pipe, against workers that crash, hang, lie, print and leave children behind."""

from __future__ import annotations

import base64
import gc
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from pytest_rwkvperf.core import errors
from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.worker import parent, starting
from pytest_rwkvperf.worker.parent import Worker
from tests.unit.worker.conftest import LOCATION, Scripted, gone, within

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

needs_shebang = pytest.mark.skipif(os.name == "nt", reason="impostors are scripts with a #! line")
ERRORS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]

PATIENCE = (0.5, 10.0, 60.0)
"""Seconds that pass before a worker is ended: more of them where it had not begun, on a machine that is late."""


class TestRequests:
    """Questions and answers with a worker that behaves."""

    def test_describe_tells_versions_and_devices(self, scripted: Scripted) -> None:
        answer = scripted.start().request("describe", 30, location=LOCATION)
        assert answer["versions"] == {"scripted": "1.0"}
        assert [device["id"] for device in answer["devices"]] == ["cpu", "spare:0"]

    def test_an_open_model_is_driven_and_cleared(self, scripted: Scripted) -> None:
        worker = scripted.open()
        worker.request("prefill", 30, tokens=[1, 2, 3])
        worker.request("decode", 30, token=4)
        logits = np.frombuffer(base64.b64decode(worker.request("logits", 30)), "<f4")
        assert logits.argmax() == 10
        worker.request("clear", 30)
        worker.request("decode", 30, token=5)
        assert np.frombuffer(base64.b64decode(worker.request("logits", 30)), "<f4").argmax() == 5

    def test_a_sample_has_its_time(self, scripted: Scripted) -> None:
        sample = scripted.open().request("sample", 30, workload="tg4")
        assert sample["nanoseconds"] == pytest.approx(4 * 0.1e9)
        assert sample["token_nanoseconds"] == pytest.approx([0.1e9] * 4)

    def test_a_request_before_open_is_refused(self, scripted: Scripted) -> None:
        with pytest.raises(errors.ProtocolError, match="send `open` first"):
            scripted.start().request("sample", 30, workload="tg4")

    def test_an_unknown_request_is_an_error_and_the_worker_lives(self, scripted: Scripted) -> None:
        worker = scripted.start()
        with pytest.raises(errors.BackendError, match="KeyError: 'dance'"):
            worker.request("dance", 30)
        assert worker.request("memory", 30)["peak_rss_bytes"] > 1 << 20

    def test_private_names_are_no_requests(self, scripted: Scripted) -> None:
        with pytest.raises(errors.BackendError, match="KeyError"):
            scripted.start().request("_open_engine", 30)

    def test_another_device_than_asked_is_refused(self, scripted: Scripted) -> None:
        worker = scripted.start(fault="other-device@open")
        with pytest.raises(errors.DeviceError, match="scripted was asked for spare:0 and took cpu"):
            worker.open(LOCATION, scripted.model, Case("scripted", "m", "fp16", "spare:0", 1, 64))

    def test_output_of_start_up_files_is_skipped(self, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = scripted.model.parent / "start-up ü"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text("print('welcome'); print('{}')", encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ["PYTHONPATH"]]))
        assert scripted.start().request("describe", 30, location=LOCATION)["versions"]

    def test_python_safe_path_keeps_all_folders(self, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONSAFEPATH", "1")
        assert scripted.start().request("describe", 30, location=LOCATION)["versions"]


def raised_by(impostor: Callable[[str], str], kinds: Sequence[str]) -> list[Exception]:
    """What requests raise in the parent that a worker answers with failures of these kinds."""
    answer = f"[say({{'id': ask()['id'], 'failed': {{'kind': kind, 'message': 'it is so'}}}}) for kind in {kinds!r}]"
    found: list[Exception] = []
    with Worker(python=impostor(f"hello(); {answer}; ask()")) as worker:
        for _ in kinds:
            with pytest.raises(errors.RwkvPerfError) as raised:
                worker.request("open", 30)
            found.append(raised.value)
    return found


class TestErrors:
    """What the worker raises arrives under its own class; what an engine raises, as a BackendError."""

    def test_an_engines_own_exception_is_named(self, scripted: Scripted) -> None:
        worker = scripted.open(fault="raise@decode")
        with pytest.raises(errors.BackendError, match="the engine raised EngineFailedError: the script says so"):
            worker.request("decode", 30, token=1)
        assert worker.request("memory", 30)

    def test_a_rust_panic_is_an_error_too(self, scripted: Scripted) -> None:
        worker = scripted.open(fault="panic@decode")
        with pytest.raises(errors.BackendError, match="the engine raised Panic: called `Option::unwrap"):
            worker.request("decode", 30, token=1)

    def test_a_missing_engine_says_how_to_get_it(self, scripted: Scripted) -> None:
        worker = scripted.start(fault="missing@versions")
        with pytest.raises(errors.BackendMissingError, match=r"scripted_native.*pip install scripted-native"):
            worker.request("describe", 30, location=LOCATION)

    @needs_shebang
    def test_errors_of_this_project_keep_their_class(self, impostor: Callable[[str], str]) -> None:
        for kind, error in zip(ERRORS, raised_by(impostor, [kind.__name__ for kind in ERRORS]), strict=True):
            assert (type(error), str(error)) == (kind, "it is so")

    @needs_shebang
    def test_other_class_names_are_not_looked_up(self, impostor: Callable[[str], str]) -> None:
        names = ["annotations", "__builtins__", "OSError", "Panic", ""]
        for name, error in zip(names, raised_by(impostor, names), strict=True):
            assert type(error) is errors.BackendError
            assert f"raised {name}: it is so" in str(error)


class TestDeath:
    """A worker that ends is noticed at once, with the signal's name and its last lines."""

    @pytest.mark.parametrize(
        ("fault", "ended", "last"),
        [
            ("abort", "was ended by SIGABRT during describe", "GGML_ASSERT(scripted) failed"),
            ("segfault", "was ended by SIGSEGV during describe", "about to read address 0"),
            ("exit3", "ended with exit code 3 during describe", "giving up"),
            ("killed", "was ended by SIGKILL (", "out-of-memory killer"),
        ],
    )
    @pytest.mark.skipif(os.name == "nt", reason="signals have names on POSIX")
    def test_during_a_request(self, scripted: Scripted, fault: str, ended: str, last: str) -> None:
        worker = scripted.start(fault=f"{fault}@versions")
        with within(60), pytest.raises(errors.WorkerDiedError) as raised:
            worker.request("describe", 600, location=LOCATION)
        assert f"the worker {ended}" in str(raised.value)
        assert last in str(raised.value)
        assert gone(worker.pid)

    @needs_shebang
    @pytest.mark.parametrize(
        ("lines", "ended"),
        [
            ("sys.exit('no torch here')", "ended with exit code 1 during its first message"),
            ("sys.stderr.write('no torch here'); os._exit(0)", "ended with exit code 0 during its first message"),
            (
                "sys.stderr.write('no torch here'); sys.stderr.flush(); os.abort()",
                "was ended by SIGABRT during its first",
            ),
        ],
    )
    def test_before_its_first_message(self, impostor: Callable[[str], str], lines: str, ended: str) -> None:
        python = impostor(lines)
        with within(parent.START_SECONDS / 2), pytest.raises(errors.WorkerDiedError) as raised:
            Worker(python=python)
        assert ended in str(raised.value)
        assert "no torch here" in str(raised.value)

    def test_between_requests(self, scripted: Scripted) -> None:
        worker = scripted.start()
        psutil.Process(worker.pid).kill()
        psutil.Process(worker.pid).wait(60)
        with within(60), pytest.raises(errors.WorkerDiedError, match="during describe"):
            worker.request("describe", 600, location=LOCATION)

    def test_only_the_last_lines_are_told(self, impostor: Callable[[str], str]) -> None:
        python = impostor("[print('line', n, file=sys.stderr) for n in range(1000)]; sys.exit(1)")
        with pytest.raises(errors.WorkerDiedError) as raised:
            Worker(python=python)
        assert re.findall(r"line (\d+)", str(raised.value)) == [str(n) for n in range(970, 1000)]

    @pytest.mark.skipif(os.name == "nt", reason="no process groups")
    def test_children_of_the_dead_are_ended(self, scripted: Scripted, tmp_path: Path) -> None:
        note = tmp_path / "pid"
        worker = scripted.start(fault="orphan@versions", note=str(note))
        with pytest.raises(errors.WorkerDiedError, match="SIGABRT"):
            worker.request("describe", 60, location=LOCATION)
        assert gone(int(note.read_text(encoding="utf-8")))

    @needs_shebang
    def test_a_worker_that_closes_its_pipe_and_stays_is_ended(
        self, impostor: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parent, "_GRACE_SECONDS", 0.3)
        worker = Worker(python=impostor("hello(); os.close(1); time.sleep(600)"))
        with pytest.raises(errors.WorkerDiedError, match="closed its pipe and stayed alive during open"):
            worker.request("open", 600)
        assert gone(worker.pid)


class TestDeadline:
    """A worker that hangs is ended with everything it has started."""

    def test_the_whole_tree_is_ended_though_it_ignores_sigterm(
        self, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parent, "_GRACE_SECONDS", 0.2)
        tree: list[int] = []

        def look(root: psutil.Process) -> None:
            with suppress(psutil.NoSuchProcess):
                while len(tree) < 2:
                    tree[:] = [child.pid for child in root.children(recursive=True)]
                    time.sleep(0.02)

        for seconds in PATIENCE:
            worker = scripted.start(fault="hang-with-child@versions")
            looking = threading.Thread(target=look, args=(psutil.Process(worker.pid),))
            looking.start()
            told = rf"did not finish describe \({seconds:.0f} s allowed\)"
            with within(seconds + 60), pytest.raises(errors.WorkerTimeoutError, match=told):
                worker.request("describe", seconds, location=LOCATION)
            looking.join()
            assert all(gone(pid) for pid in (worker.pid, *tree))
            if len(tree) == 2:
                break
        assert len(tree) == 2, "a child and a grandchild were there to be ended"

    @needs_shebang
    def test_a_child_that_is_started_after_sigterm_is_ended(
        self, impostor: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parent, "_GRACE_SECONDS", 2.0)
        note = tmp_path / "pid"
        starts_a_child = f"""
            import subprocess
            def start(*_):
                child = subprocess.Popen(["sleep", "600"], start_new_session=True)
                with open({str(note)!r}, "w") as file: file.write(str(child.pid))
            signal.signal(signal.SIGTERM, start)
            hello()
            while True: time.sleep(600)
        """
        with pytest.raises(errors.WorkerTimeoutError):
            Worker(python=impostor(starts_a_child)).request("open", 0.2)
        assert gone(int(note.read_text(encoding="utf-8")))

    def test_a_worker_that_obeys_sigterm_is_not_killed(
        self, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parent, "_GRACE_SECONDS", 120.0)
        worker = scripted.start(fault="sleep@versions")
        with within(60), pytest.raises(errors.WorkerTimeoutError):
            worker.request("describe", 0.2, location=LOCATION)
        assert gone(worker.pid)

    def test_a_worker_that_never_says_hello(
        self, impostor: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = ""
        for seconds in PATIENCE:
            monkeypatch.setattr(parent, "START_SECONDS", seconds)
            with pytest.raises(errors.WorkerTimeoutError) as raised:
                Worker(python=impostor("print('importing', file=sys.stderr, flush=True); time.sleep(600)"))
            told = str(raised.value)
            assert f"first message ({seconds:.0f} s allowed)" in told
            if "importing" in told:
                break
        assert told.splitlines()[-1].strip() == "importing"

    def test_progress_does_not_move_the_deadline(self, impostor: Callable[[str], str]) -> None:
        slow = "hello(); n = ask()['id']\nwhile True: say({'id': n, 'progress': ['x', 0]}); time.sleep(0.005)"
        with pytest.raises(errors.WorkerTimeoutError):
            Worker(python=impostor(slow)).request("open", 0.2)

    def test_too_many_progress_messages_are_an_error(self, impostor: Callable[[str], str]) -> None:
        flood = "hello(); n = ask()['id']\nwhile True: say({'id': n, 'progress': ['x', 0]})"
        worker = Worker(python=impostor(flood))
        with within(30), pytest.raises(errors.ProtocolError, match="more than 1000 messages a second during open"):
            worker.request("open", 60)
        assert gone(worker.pid)


@needs_shebang
class TestNonsense:
    """Answers that are none end the worker and say what came."""

    @pytest.mark.parametrize(
        ("answer", "complaint"),
        [
            ("os.write(1, b'ggml_vulkan: Found 1 device\\n')", "a line that is not JSON: b'ggml_vulkan"),
            ("say([1])", "not an object"),
            ("say({'id': 7, 'done': None})", "an answer to another request than open: 7"),
            ("say({'hello': 1})", "an answer to another request than open: None"),
            ("say({'id': n})", "no answer to open"),
            ("say({'id': n, 'failed': 'yes'})", "no answer to open"),
            ("say({'id': n, 'failed': {'kind': 3, 'message': 'm'}})", "no answer to open"),
            ("say({'id': n, 'progress': 3})", "no answer to open"),
            ("say({'id': n, 'progress': [1, 2, 3]})", "no answer to open"),
            ('os.write(1, b\'{"id": 1, "done": NaN}\\n\')', "not JSON"),
            ("os.write(1, b'x' * (5 << 20))", "a message of more than 4194304 bytes"),
            ("say({'id': n, 'done': 'x' * (5 << 20)})", "a message of more than 4194304 bytes"),
        ],
    )
    def test_it_is_a_protocol_error(self, impostor: Callable[[str], str], answer: str, complaint: str) -> None:
        lines = f"hello(); n = ask()['id']; print('on stderr', file=sys.stderr, flush=True); {answer}; time.sleep(600)"
        worker = Worker(python=impostor(lines))
        with within(60), pytest.raises(errors.ProtocolError) as raised:
            worker.request("open", 600, lambda _sentence, _fraction: None)
        assert complaint in str(raised.value)
        assert "on stderr" in str(raised.value)
        assert gone(worker.pid)

    def test_progress_is_told_in_order(self, impostor: Callable[[str], str]) -> None:
        lines = "hello(); n = ask()['id']; [say({'id': n, 'progress': [f'at {k}', k / 4]}) for k in range(5)]; "
        heard: list[tuple[str, float]] = []
        with Worker(python=impostor(lines + "say({'id': n, 'done': 5}); ask()")) as worker:
            assert worker.request("open", 30, lambda *told: heard.append(told)) == 5
        assert heard == [(f"at {k}", k / 4) for k in range(5)]

    def test_an_endless_line_before_hello_ends_it(
        self, impostor: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parent, "_GRACE_SECONDS", 0.2)
        with within(parent.START_SECONDS / 2), pytest.raises(errors.WorkerError):
            Worker(python=impostor("while True: os.write(1, b'x' * 65536)"))


class TestNoise:
    """An engine's own output neither breaks the protocol nor fills memory."""

    def test_a_hundred_megabytes_on_stdout(self, scripted: Scripted) -> None:
        worker = scripted.open(fault="noise@decode")
        before = psutil.Process().memory_info().rss
        assert worker.request("decode", 60, token=3) is None
        assert psutil.Process().memory_info().rss - before < 32 << 20
        assert np.frombuffer(base64.b64decode(worker.request("logits", 60)), "<f4").argmax() == 3

    def test_an_engine_that_reads_stdin_gets_nothing(self, scripted: Scripted) -> None:
        worker = scripted.start(fault="read-stdin@versions")
        worker.request("describe", 60, location=LOCATION)
        assert worker.request("memory", 60)


class TestEnd:
    """Nothing is left behind."""

    @pytest.mark.skipif(os.name == "nt", reason="counts file descriptors")
    def test_neither_processes_nor_files_nor_threads(self, scripted: Scripted) -> None:
        scripted.start().close()
        me = psutil.Process()
        gc.collect()  # what earlier tests have left goes now or later: never is there more than before
        descriptors, threads, pids = me.num_fds(), threading.active_count(), []
        for _ in range(3):
            with Worker() as worker:
                pids.append(worker.pid)
        assert me.num_fds() <= descriptors
        assert threading.active_count() <= threads
        assert not any(psutil.pid_exists(pid) for pid in pids), "each was reaped"

    def test_close_waits_for_no_destructor(self, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parent, "_GRACE_SECONDS", 120.0)
        worker = scripted.open(fault="hang-at-exit@open")
        with within(60):
            worker.close()
        assert gone(worker.pid)

    def test_an_error_in_the_block_ends_a_hanging_worker(
        self, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parent, "_GRACE_SECONDS", 0.2)
        worker = scripted.start(fault="hang@versions")

        def interrupted() -> None:
            with worker:
                worker._send({"id": 1, "do": "describe", "with": {"location": LOCATION}}, "describe")
                raise KeyboardInterrupt

        with within(60), pytest.raises(KeyboardInterrupt):
            interrupted()
        assert gone(worker.pid)

    def test_a_worker_does_not_end_with_the_thread_that_started_it(self, scripted: Scripted) -> None:
        started: list[Worker] = []
        thread = threading.Thread(target=lambda: started.append(scripted.start()))
        thread.start()
        thread.join()
        assert not gone(started[0].pid, 0.2)
        assert started[0].request("memory", 30)

    def test_the_first_workers_of_all_live_though_several_threads_start_them_at_once(
        self, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seconds = iter((0.1, 1.0))

        class Slow(ThreadPoolExecutor):
            def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - the real one's
                time.sleep(next(seconds))
                super().__init__(**settings)

        monkeypatch.setattr(starting, "ThreadPoolExecutor", Slow)
        monkeypatch.setattr(starting, "_STARTER", starting._Starter())
        with ThreadPoolExecutor(2) as threads:
            workers = [*threads.map(lambda _: scripted.start(), range(2))]
        assert [worker.request("describe", 30, location=LOCATION)["devices"] for worker in workers]

    def test_every_worker_can_be_ended_while_another_thread_is_making_one(
        self, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted() -> threading.Event:
            parent.end_all()
            return threading.Event()

        monkeypatch.setattr(parent, "threading", SimpleNamespace(Event=interrupted, Thread=threading.Thread))
        assert scripted.start().request("memory", 30)

    def test_its_temporary_folder_is_private_and_goes_with_it(
        self, scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        before = set(tmp_path.iterdir())
        worker = scripted.start()
        (folder,) = set(tmp_path.iterdir()) - before
        assert psutil.Process(worker.pid).environ()["TMPDIR"] == str(folder)
        if os.name == "posix":
            assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "left").write_text("by the engine")
        worker.close()
        assert not folder.exists()

    def test_ending_twice_is_no_error(self, scripted: Scripted) -> None:
        worker = scripted.start()
        worker.kill()
        worker.kill()
        worker.close()

    @pytest.mark.parametrize("fault", ["", "hang@versions"])
    @pytest.mark.usefixtures("scripted")
    def test_a_worker_ends_when_its_parent_is_killed(self, fault: str) -> None:
        code = (
            "import sys\nfrom pytest_rwkvperf.worker.parent import Worker\n"
            "worker = Worker(environment={'SCRIPTED_FAULT': sys.argv[1]})\n"
            f"print(worker.pid, flush=True)\nworker.request('describe', 600, location={LOCATION!r})\nsys.stdin.read()\n"
        )
        command = [sys.executable, "-c", code, fault]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            pid = int(process.stdout.readline())
            assert not gone(pid, 0.05)
            process.kill()
        assert gone(pid)

    @pytest.mark.skipif(os.name == "nt", reason="terminals and process groups of POSIX")
    def test_a_worker_is_not_in_the_terminals_process_group(self, scripted: Scripted) -> None:
        assert os.getpgid(scripted.start().pid) != os.getpgid(0)
