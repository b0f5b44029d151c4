"""States of a repository in a folder: exactly those files, nothing written into the user's repository."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.environments import git, sources
from pytest_rwkvperf.environments.git import GitError, Store
from tests.unit.environments import repositories

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache" / "objects.git", tmp_path / "cache" / "files")


def contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): file.read_text(encoding="latin-1")
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_a_checkout_has_exactly_the_files_of_a_commit_and_leaves_equal_ones_alone(tmp_path: Path, store: Store) -> None:
    names = repositories.repository(
        tmp_path / "user", {"a": "1", "sub/b": "1"}, {"a": "2", "c": "3"}, {"a": "2", "sub/b": "4"}
    )
    repositories.git(tmp_path / "user", "rm", "-q", "sub/b")
    before = contents(tmp_path / "user")
    for name, expected in zip(names, ({"a": "1", "sub/b": "1"}, {"a": "2", "sub/b": "1", "c": "3"}), strict=False):
        store.use(tmp_path / "user", mirror=False)
        store.check_out(git.commit(tmp_path / "user", name).tree)
        (store.files / "left over").write_text("of a build")
        assert contents(store.files) == {**expected, "left over": "of a build"}
    stamp = (store.files / "a").stat().st_mtime_ns
    (store.files / "sub" / "b").write_text("changed by a build")
    store.check_out(git.commit(tmp_path / "user", names[2]).tree)
    assert contents(store.files) == {"a": "2", "sub/b": "4", "c": "3"}
    assert (store.files / "a").stat().st_mtime_ns == stamp
    assert contents(tmp_path / "user") == before


def test_a_mirror_fetches_the_files_of_a_state_when_they_are_needed(tmp_path: Path, store: Store) -> None:
    (name,) = repositories.repository(tmp_path / "user", {"a": "1"})
    repositories.git(tmp_path / "user", "config", "uploadpack.allowFilter", "true")
    mirror = git.mirror(f"file://{tmp_path / 'user'}", tmp_path / "mirror.git")
    store.use(mirror, mirror=True)
    store.check_out(git.commit(mirror, name).tree)
    assert contents(store.files) == {"a": "1"}


def test_a_repository_that_has_been_removed_does_not_disturb_another(tmp_path: Path, store: Store) -> None:
    for number in ("1", "2"):
        (name,) = repositories.repository(tmp_path / number, {"a": number})
        store.use(tmp_path / number, mirror=False)
        store.check_out(git.commit(tmp_path / number, name).tree)
        assert contents(store.files) == {"a": number}
        shutil.rmtree(tmp_path / number)


def test_a_snapshot_has_uncommitted_changes_and_new_files_and_not_what_is_ignored(tmp_path: Path, store: Store) -> None:
    user = tmp_path / "user"
    (name,) = repositories.repository(user, {"a": "1", ".gitignore": "build\n"})
    committed = git.commit(user, name).tree
    assert store.snapshot(user) == committed
    repositories.write(user, {"a": "2", "new": "3", "build/x": "4"})
    repository = contents(user / ".git")
    store.check_out(store.snapshot(user))
    assert contents(store.files) == {"a": "2", "new": "3", ".gitignore": "build\n"}
    assert contents(user / ".git") == repository


def test_a_snapshot_needs_no_repository(tmp_path: Path, store: Store) -> None:
    repositories.write(tmp_path / "folder", {"a": "1"})
    store.check_out(store.snapshot(tmp_path / "folder"))
    assert contents(store.files) == {"a": "1"}


def test_a_checkout_goes_on_after_a_killed_one(tmp_path: Path, store: Store) -> None:
    (name,) = repositories.repository(tmp_path / "user", {"a": "1"})
    store.use(tmp_path / "user", mirror=False)
    (tmp_path / "cache" / "objects.index.lock").touch()
    store.check_out(git.commit(tmp_path / "user", name).tree)
    assert contents(store.files) == {"a": "1"}


def test_submodules_are_named_with_their_commits_and_places(tmp_path: Path, store: Store) -> None:
    (inner,) = repositories.repository(tmp_path / "inner", {"x": "1"})
    repositories.repository(tmp_path / "outer", {"a": "1"})
    repositories.git(tmp_path / "outer", "submodule", "--quiet", "add", str(tmp_path / "inner"), "vendor/inner")
    repositories.git(tmp_path / "outer", "commit", "-q", "-m", "submodule")
    outer = git.commit(tmp_path / "outer", "HEAD")
    store.use(tmp_path / "outer", mirror=False)
    assert store.submodules(outer.tree) == {"vendor/inner": inner}
    assert store.submodule_url(outer.tree, "vendor/inner") == str(tmp_path / "inner")


def test_a_range_is_in_order_and_must_be_one(tmp_path: Path) -> None:
    user = tmp_path / "user"
    names = repositories.repository(user, *({"a": str(number)} for number in range(4)))
    first, last = git.commit(user, names[1]), git.commit(user, "main")
    assert [commit.name for commit in git.commits(user, first, last)] == names[1:]
    assert [commit.subject for commit in git.commits(user, first, last)] == ["commit 1", "commit 2", "commit 3"]
    with pytest.raises(GitError, match="no ancestor"):
        git.commits(user, last, first)


@pytest.mark.parametrize("revision", ["nothing", "--all", "main..main", ""])
def test_an_unknown_revision_is_one_sentence(tmp_path: Path, revision: str) -> None:
    repositories.repository(tmp_path / "user", {"a": "1"})
    with pytest.raises(GitError, match="has no revision") as error:
        git.commit(tmp_path / "user", revision)
    assert len(str(error.value).splitlines()) == 1


def test_a_mirror_of_a_url_follows_it(tmp_path: Path) -> None:
    user = tmp_path / "user"
    (first,) = repositories.repository(user, {"a": "1"})
    url = f"file://{user}"
    mirror = git.mirror(url, tmp_path / "mirror.git")
    assert git.commit(mirror, "main").name == first
    repositories.git(user, "commit", "-q", "--allow-empty", "-m", "later")
    assert git.commit(git.mirror(url, tmp_path / "mirror.git"), "main").subject == "later"
    with pytest.raises(GitError):
        git.mirror(f"file://{tmp_path / 'none'}", tmp_path / "other.git")
    assert not (tmp_path / "other.git").exists()


def test_a_plain_web_server_is_enough_and_its_absence_is_one_sentence(tmp_path: Path, store: Store) -> None:
    user = tmp_path / "user"
    repositories.repository(user, {"a": "1"}, {"a": "2"})
    with repositories.served(user) as url:
        mirror = git.mirror(url, tmp_path / "mirror.git")
        found = git.commit(mirror, "main~1")
        store.use(mirror, mirror=True)
        store.check_out(found.tree)
        assert (store.files / "a").read_text() == "1"
        with pytest.raises(GitError, match=rf"^{url}x cannot be read \(git: fatal: .*not found.*\); check the address"):
            git.mirror(f"{url}x", tmp_path / "other.git")
    for folder in ("mirror.git", "other.git"):
        with pytest.raises(GitError, match=rf"^{url} cannot be read \(git: .*\); check .* clone on this") as error:
            git.mirror(url, tmp_path / folder)
        assert len(str(error.value).splitlines()) == 1
    assert git.commit(mirror, "main~1") == found
    assert not (tmp_path / "other.git").exists()


def test_the_cause_is_told_and_not_the_advice_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_SSH_COMMAND", "echo 'ssh: no such host' >&2; false")
    with pytest.raises(GitError, match=r"^git@host:x cannot be read \(git: ssh: no such host\); check"):
        git.mirror("git@host:x", tmp_path / "mirror.git")


@pytest.mark.parametrize(
    ("url", "rest"),
    [
        ("https://me:hush@host/x", "https://host/x"),
        ("https://hush@host/x", "https://host/x"),
        ("http://hush@host/x", "http://host/x"),
        ("ssh://me:hush@host/x", "ssh://host/x"),
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str, rest: str) -> None:
    with pytest.raises(
        OptionError, match=f"^{rest} was given with a password; leave it out, .*gitcredentials"
    ) as error:
        sources.of_text(f"{url}@main")
    assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["https://host/x", "ssh://git@host/x", "git@host:x", "ssh://git@host:22/x", "file:///a@b:c@d"]
)
def test_a_user_of_ssh_is_no_password(url: str) -> None:
    git.check_url(url)
