"""What is asked of git: which commit a name means, the commits of a range, and files of a state into a folder.

Nothing is ever written into the user's repository. A store in the cache, a bare repository for each engine, reads its
objects and remembers in an index what its folder holds: a checkout touches the files that differ and no others, which
keeps a build incremental.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_rwkvperf.core.errors import OptionError, StorageError

_TREE = "160000"
"""Mode of a submodule in a tree (git-fast-import(1))."""

_SHORT = 9
"""Letters of a commit's name for people."""

_FULL = re.compile(r"[0-9a-f]{40,64}")

_SECRET = re.compile(r"(?P<scheme>\w+://)(?:(?<=http://)|(?<=https://)|[^/@:]*:)[^/@]*@")
"""The beginning of a URL with a secret before the host: a password, for HTTP also a token in the place of a user."""

_CAUSES = ("fatal:", "error:", "ERROR:", "ssh:")
"""How git begins the line that says what is wrong; advice may follow it."""

_LOCAL_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
)
"""Set inside a git hook (git rev-parse --local-env-vars): they redirect commands to the hook's repository."""


class GitError(OptionError):
    """Git refuses what was asked; the message has its last line."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: its name, the tree with its content, and the first line of its message."""

    name: str
    tree: str
    subject: str

    @property
    def short(self) -> str:
        """The first letters of its name, for people."""
        return self.name[:_SHORT]


def is_url(origin: str) -> bool:
    """Whether a repository is reached through a network or a file URL, and not through a path."""
    return "://" in origin or re.match(r"[\w.-]+@[\w.-]+:", origin) is not None


def run(*arguments: str | Path, environment: dict[str, str] | None = None) -> str:
    """Git's output.

    Raises:
        GitError: it failed, or there is no git.
        StorageError: the disk is full.
    """
    # A repository above the cache folder is not this one's; a prompt for a password would wait for ever.
    own = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **(environment or {})}
    inherited = {name: value for name, value in os.environ.items() if name not in _LOCAL_VARIABLES}
    try:
        ended = subprocess.run(
            ["git", *map(str, arguments)],
            env={**inherited, **own},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise GitError("there is no git on PATH; install it") from None
    if ended.returncode == 0:
        return ended.stdout
    lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    if any("No space left on device" in line for line in lines):
        raise StorageError(f"the disk is full: git {lines[-1]}; make room, what is there stays usable")
    causes = [line for line in lines if line.startswith(_CAUSES)] or lines[-1:]
    raise GitError(f"git: {causes[0] if causes else f'exit code {ended.returncode}'}")


def is_repository(path: Path) -> bool:
    """Whether a folder is a repository or the top of one's working tree; not a folder somewhere below."""
    try:
        return (path / ".git").exists() or run("-C", path, "rev-parse", "--is-bare-repository").strip() == "true"
    except GitError:
        return False


def commit(repository: Path, revision: str) -> Commit:
    """The commit that a revision means now.

    Raises:
        GitError: the repository has none of this name.
    """
    try:
        name = run("-C", repository, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").split()[-1]
    except GitError:
        raise GitError(f"{repository} has no revision {revision!r}; git log there shows which it has") from None
    return _parsed(run("-C", repository, "log", "-1", "--format=%H %T %s", name).strip())


def is_changed(repository: Path) -> bool:
    """Whether files of a working tree differ from its commit; a bare repository has none."""
    try:
        return bool(run("-C", repository, "status", "--porcelain", "--untracked-files=no"))
    except GitError:
        return False


def has_file(repository: Path, commit_name: str, path: str) -> bool:
    """Whether a commit has a file or folder at a path."""
    try:
        run("-C", repository, "cat-file", "-e", f"{commit_name}:{path}")
    except GitError:
        return False
    return True


def commits(repository: Path, good: Commit, bad: Commit) -> list[Commit]:
    """The commits from one to another, both included, oldest first; of a merge only the first parent's side.

    Raises:
        GitError: one is no ancestor of the other.
    """
    try:
        run("-C", repository, "merge-base", "--is-ancestor", good.name, bad.name)
    except GitError:
        raise GitError(
            f"{good.short} is no ancestor of {bad.short} in {repository}; name GOOD..BAD, older first"
        ) from None
    shown = run(
        "-C", repository, "log", "--reverse", "--first-parent", "--format=%H %T %s", f"{good.name}..{bad.name}", "--"
    )
    return [good, *map(_parsed, shown.splitlines())]


def _parsed(line: str) -> Commit:
    name, tree, subject = (*line.split(" ", 2), "")[:3]
    return Commit(name, tree, subject)


def mirror(url: str, folder: Path) -> Path:
    """A local repository with the history of one at a URL, brought up to date; files come when they are needed.

    Raises:
        GitError: it cannot be reached.
    """
    try:
        if (folder / "HEAD").exists():
            run("-C", folder, "fetch", "--quiet", "--prune")
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            run("clone", "--quiet", "--mirror", "--filter=blob:none", url, Path(temporary, "clone"))
            Path(temporary, "clone").rename(folder)
    except GitError as error:
        remedy = "check the address and the network, or name a clone on this machine"
        raise GitError(f"{url} cannot be read ({error}); {remedy}") from None
    return folder


def check_url(url: str) -> None:
    """Refuse a URL that holds a secret: sides of a comparison are shown, and stored in records.

    Raises:
        OptionError: it does; the message leaves it out.
    """
    if match := _SECRET.match(url):
        rest = f"{match['scheme']}{url[match.end() :]}"
        raise OptionError(f"{rest} was given with a password; leave it out, git asks its helper (gitcredentials(7))")


class Store:
    """A bare repository in the cache that sees the objects of others, and a folder that holds one state at a time."""

    def __init__(self, objects: Path, files: Path) -> None:
        self._own, self.files = objects, files
        self._git = objects  # where git works: there, or in a mirror after `use`
        self._index = objects.with_suffix(".index")

    def use(self, repository: Path, *, mirror: bool) -> None:
        """Take states from a repository: of a mirror its own way, which fetches files when they are needed.

        Nothing is copied out of a user's repository: git reads its objects where they are (gitrepository-layout(5)).
        """
        if mirror:
            self._git = repository
            return
        self._make()
        objects = Path(run("-C", repository, "rev-parse", "--path-format=absolute", "--git-path", "objects").strip())
        listed = self._own / "objects" / "info" / "alternates"
        known = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
        still_there = [line for line in known if Path(line).is_dir()]
        listed.write_text(
            "".join(f"{line}\n" for line in dict.fromkeys([*still_there, str(objects)])), encoding="utf-8"
        )

    def snapshot(self, folder: Path) -> str:
        """The tree of a folder as it is now, uncommitted changes and new files included, ignored ones left out.

        Raises:
            GitError: a file cannot be read.
        """
        self._make()
        with tempfile.TemporaryDirectory(dir=self._git) as temporary:
            # Paths are told apart by `-C`: without it git would look for attributes of the current folder.
            own = {"GIT_INDEX_FILE": str(Path(temporary, "index"))}
            place = ("-C", folder, f"--git-dir={self._git}", f"--work-tree={folder}", "-c", "core.autocrlf=false")
            run(*place, "add", "--all", ".", environment=own)
            return run(*place, "write-tree", environment=own).strip()

    def check_out(self, tree: str) -> None:
        """Make the folder hold exactly these files; those that are the same already are not touched.

        Raises:
            GitError: a file cannot be written.
            StorageError: the disk is full.
        """
        self.files.mkdir(parents=True, exist_ok=True)
        self._index.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{self._index}.lock").unlink(missing_ok=True)  # a killed process's: the engine's own lock is held
        own = {"GIT_INDEX_FILE": str(self._index)}
        place = ("-C", self.files, f"--git-dir={self._git}", f"--work-tree={self.files}", "-c", "core.autocrlf=false")
        with suppress(GitError):  # it fails where a file differs; this is for equal files that a cache has restored
            run(*place, "update-index", "-q", "--refresh", environment=own)
        run(*place, "read-tree", "-u", "--reset", tree, environment=own)
        run(*place, "clean", "-ffdxq", environment=own)

    def submodules(self, tree: str) -> dict[str, str]:
        """The commit of each submodule, by its folder."""
        rows = run("-C", self._git, "ls-tree", "-r", tree).splitlines()
        parts = [row.split(None, 3) for row in rows if row.startswith(_TREE)]
        return {path: name for _, _, name, path in parts}

    def submodule_url(self, tree: str, path: str) -> str:
        """Where a tree says that the submodule of a folder comes from.

        Raises:
            GitError: it does not say.
        """
        blob = f"--blob={tree}:.gitmodules"
        rows = run("-C", self._git, "config", blob, "--get-regexp", r"^submodule\..*\.path$").splitlines()
        names = [row.split(" ", 1)[0].removesuffix(".path") for row in rows if row.split(" ", 1)[1] == path]
        if not names:
            raise GitError(f"{path} is a submodule that .gitmodules does not name; check it out, or commit the file")
        return run("-C", self._git, "config", blob, f"{names[0]}.url").strip()

    def tree_of(self, commit_name: str) -> str:
        """The tree of a commit."""
        return run("-C", self._git, "rev-parse", f"{commit_name}^{{tree}}").strip()

    def _make(self) -> None:
        if not (self._own / "HEAD").exists():
            self._own.parent.mkdir(parents=True, exist_ok=True)
            run("init", "--quiet", "--bare", self._own)
