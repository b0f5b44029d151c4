"""Git repositories for tests."""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHO = {f"GIT_{role}_{part}": "a@b" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "protocol.file.allow=always", *arguments]
    return subprocess.run(command, env={**os.environ, **WHO}, capture_output=True, text=True, check=True).stdout.strip()


def repository(folder: Path, *states: dict[str, str]) -> list[str]:
    """A repository with a commit for each of these states (file to content); their names."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    names = []
    for number, files in enumerate(states):
        write(folder, files)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "--allow-empty", "-m", f"commit {number}")
        names.append(git(folder, "rev-parse", "HEAD"))
    return names


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of a repository on a web server that knows files alone (git-update-server-info(1))."""
    git(folder, "update-server-info")
    handler = partial(_Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/.git"
        finally:
            server.shutdown()
            thread.join()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
