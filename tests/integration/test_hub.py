"""Models by public name, from a local server that implements the hubs' protocols and can misbehave."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Fetch = Callable[..., subprocess.CompletedProcess[str]]

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_thisTokenMustNotBeSeen"  # noqa: S105 - a made-up one
CONTENT = bytes(range(256)) * 4000


@dataclass
class Hub:
    """The server's files and behaviour."""

    content: bytes = CONTENT
    break_after: int | None = None
    """Close the connection after so many bytes of the first answer."""
    short_by: int = 0
    """Announce the full length and always send so many bytes less."""
    corrupt: bool = False
    status: int | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a class of short methods
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: object) -> None:
            """Log nothing."""

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            ranged = self.headers.get("Range")
            hub.requests.append((self.command, ranged))
            split = urlsplit(self.path)
            name = parse_qs(split.query).get("FilePath", [split.path.rsplit("/", 1)[-1]])[0]
            start = int(ranged.removeprefix("bytes=").partition("-")[0]) if ranged else 0
            if hub.status is not None or name != "model.st":
                code = {"X-Error-Code": "EntryNotFound"} if hub.status is None else {}
                headers = {"X-Error-Message": f"refused {self.headers.get('Authorization')}", "Content-Length": "0"}
                self._head(hub.status or 404, {**code, **headers})
            elif self.headers.get("If-None-Match") == f'"{hub.digest}"':
                self._head(304, {})
            elif start >= len(hub.content):
                self._head(416, {"Content-Length": "0"})
            else:
                self._head(206 if ranged else 200, self._about(start))
                if body:
                    self._send(start)

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def _about(self, start: int) -> dict[str, str]:
            total = len(hub.content)
            ranged = {"Content-Range": f"bytes {start}-{total - 1}/{total}"} if start else {}
            etag = {"ETag": f'"{hub.digest}"', "Accept-Ranges": "bytes", "X-Repo-Commit": COMMIT}
            return {**ranged, **etag, "Content-Length": str(total - start)}

        def _send(self, start: int) -> None:
            hub.sent += 1
            data = hub.content[start : len(hub.content) - hub.short_by]
            if hub.corrupt:
                data = data[:-1] + bytes([data[-1] ^ 1])
            broken, hub.break_after = hub.break_after, None
            self.wfile.write(data if broken is None else data[:broken])
            if broken is not None or hub.short_by:
                self.close_connection = True

    return Handler


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def server(hub: Hub) -> Iterator[str]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()
    thread.join()


FETCH = """
import sys
from pathlib import Path
from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import download, hub
download._PAUSE_SECONDS = 0.01
sentences = []
try:
    path = hub.fetch(hub.parse(sys.argv[1]), Path(sys.argv[2]), lambda sentence, fraction: sentences.append(sentence))
except ModelError as error:
    sys.exit(f"ModelError: {error}")
print("\\n".join(dict.fromkeys(sentences)))
print(path)
"""


@pytest.fixture
def fetch(server: str, tmp_path: Path) -> Fetch:
    """Fetch in a process of its own: the client reads its environment when it is imported."""

    def run(reference: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {
            **os.environ,
            "HF_ENDPOINT": server,
            "MODELSCOPE_ENDPOINT": server,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
            **environment,
        }
        command = [sys.executable, "-c", FETCH, reference, str(tmp_path / "cache")]
        return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300, check=False)

    return run


def fetched(done: subprocess.CompletedProcess[str]) -> bytes:
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1]).read_bytes()


def refused(done: subprocess.CompletedProcess[str], reference: str, reason: str) -> None:
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ModelError: {reference} ")
    assert reason in last
    assert TOKEN not in done.stderr + done.stdout


def left(folder: Path) -> list[str]:
    """Model files that a failure left behind, complete or partial."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 1000]


HUBS = pytest.mark.parametrize("reference", ["hf:some-one/repo.x/model.st", "ms:some-one/repo.x/model.st"])


@HUBS
def test_second_fetch_uses_the_cache(reference: str, fetch: Fetch, hub: Hub) -> None:
    done = fetch(reference)
    assert fetched(done) == CONTENT
    assert f"looking for {reference}" in done.stdout
    assert hub.sent == 1
    assert fetched(fetch(reference)) == CONTENT
    asked = len(hub.requests)
    assert fetched(fetch(reference, HF_HUB_OFFLINE="1")) == CONTENT
    assert (hub.sent, len(hub.requests)) == (1, asked)


@pytest.mark.parametrize(
    ("reference", "continued"),
    [("hf:some-one/repo.x/model.st", 10 << 20), ("ms:some-one/repo.x/model.st", 12_000_000)],
    ids=["hf", "ms"],
)
def test_broken_connection_is_resumed(reference: str, continued: int, fetch: Fetch, hub: Hub) -> None:
    hub.content = CONTENT * 20
    hub.break_after = 12_000_000  # Hugging Face's client continues at the end of its last whole 10 MiB
    assert fetched(fetch(reference)) == hub.content
    assert ("GET", f"bytes={continued}-") in hub.requests


@HUBS
def test_file_shorter_than_announced_is_refused(reference: str, fetch: Fetch, hub: Hub, tmp_path: Path) -> None:
    hub.short_by = 5_000
    refused(fetch(reference, HF_HUB_DOWNLOAD_TIMEOUT="2"), reference, "could not be fetched")
    assert left(tmp_path) == []
    hub.short_by = 0
    assert fetched(fetch(reference)) == CONTENT


def test_damaged_file_is_refused(fetch: Fetch, hub: Hub, tmp_path: Path) -> None:
    hub.corrupt = True
    refused(fetch("ms:a/b/model.st"), "ms:a/b/model.st", "its SHA-256 is not the hub's")
    assert left(tmp_path) == []


def test_next_run_resumes_a_download(fetch: Fetch, server: str, hub: Hub, tmp_path: Path) -> None:
    hub.break_after = 300_000
    script = FETCH.replace("download._PAUSE_SECONDS = 0.01", "download._TRIES = 1")
    endpoint = {**os.environ, "MODELSCOPE_ENDPOINT": server}
    command = [sys.executable, "-c", script, "ms:a/b/model.st", str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, env=endpoint, timeout=300, check=False)
    assert done.returncode == 1
    hub.requests.clear()
    assert fetched(fetch("ms:a/b/model.st")) == CONTENT
    assert hub.requests == [("GET", "bytes=300000-")]


@HUBS
def test_a_changed_file_is_fetched_again(reference: str, fetch: Fetch, hub: Hub) -> None:
    assert fetched(fetch(reference)) == CONTENT
    hub.content = CONTENT[::-1]
    if reference.startswith("hf"):  # there a commit names the content
        reference = reference.replace("repo.x", "other")
    assert fetched(fetch(reference)) == CONTENT[::-1]


@HUBS
def test_offline_and_not_cached(reference: str, fetch: Fetch, hub: Hub) -> None:
    refused(fetch(reference, HF_HUB_OFFLINE="1"), reference, "offline mode is on")
    assert hub.requests == []


@HUBS
@pytest.mark.parametrize(("status", "reason"), [(None, "no such file|not exist"), (403, "403|not public")])
def test_refusals_of_the_hub(reference: str, status: int | None, reason: str, fetch: Fetch, hub: Hub) -> None:
    hub.status = status
    wanted = reference.replace("model.st", "absent.st")
    done = fetch(wanted)
    refused(done, wanted, "")
    assert re.search(reason, done.stderr.strip().splitlines()[-1])


def test_unreachable_server(fetch: Fetch) -> None:
    # Hugging Face's client tries for 24 s before it says so; tests/unit/models/test_hub.py has its errors.
    done = fetch("ms:a/b/model.st", MODELSCOPE_ENDPOINT="http://127.0.0.1:9")
    refused(done, "ms:a/b/model.st", "check the connection")


def test_unreachable_server_falls_back_to_the_cached_file(fetch: Fetch) -> None:
    fetched(fetch("ms:a/b/model.st"))
    done = fetch("ms:a/b/model.st", MODELSCOPE_ENDPOINT="http://127.0.0.1:9")
    assert fetched(done) == CONTENT
    assert "using the file fetched earlier" in done.stdout


def test_command_accepts_a_public_name(server: str, hub: Hub, tmp_path: Path) -> None:
    made = tmp_path / "nano.st"
    command = [sys.executable, "-m", "pytest_rwkvperf.cli"]
    subprocess.run([*command, "synth", "nano", "--output", str(made)], check=True, capture_output=True, timeout=300)
    hub.content = made.read_bytes()
    environment = {**os.environ, "MODELSCOPE_ENDPOINT": server, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [*command, "inspect", "ms:a/b/model.st"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "4 layers, width 256" in done.stdout
