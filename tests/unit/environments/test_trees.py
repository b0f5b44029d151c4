"""Builds from source: complete or absent, made once, incremental, and one sentence for what cannot be built."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.errors import BackendMissingError, OptionError, StorageError
from pytest_rwkvperf.environments import kept, named_builds, sources, trees
from pytest_rwkvperf.environments.build import BuildError
from pytest_rwkvperf.environments.builders import registry
from pytest_rwkvperf.environments.side import Side
from pytest_rwkvperf.environments.sources import Source
from tests.unit.environments import repositories

if TYPE_CHECKING:
    from pytest_rwkvperf.environments.builders.builder import Place

FILES = {"engine.h": "// rwkv7\n", "code": "1"}


@dataclass
class Copier:
    """Builds by copying a file, with a command that the test names."""

    name: str = "copied"
    backend: str = "llama-cpp"
    upstream: str = "https://example.org/copied"
    marks: tuple[str, ...] = ("engine.h",)
    rwkv7: tuple[str, str] = (".", "rwkv7")
    command: str = "cp '{sources}/code' '{target}/libcopied.so'"
    told: tuple[str, ...] = ("-O2",)
    killed: bool = False
    built: list[str] = field(default_factory=list)

    def flags(self) -> tuple[str, ...]:
        return self.told

    def build(self, place: Place) -> tuple[Side, tuple[str, ...]]:
        self.built.append((place.sources / "code").read_text())
        place.run(["sh", "-c", self.command.format(sources=place.sources, target=place.target, work=place.work)])
        if self.killed:
            raise KeyboardInterrupt
        return Side(sys.executable, {"PLACE": str(place.final)}), ()


@pytest.fixture
def copier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copier:
    monkeypatch.setattr(folders, "cache", lambda: tmp_path / "cache")
    builder = Copier()
    monkeypatch.setitem(registry.BUILDERS, builder.name, builder)
    return builder


@pytest.fixture
def user(tmp_path: Path) -> Path:
    repositories.repository(tmp_path / "user", FILES, {"code": "2"}, {"code": "1", "other": "x"})
    return tmp_path / "user"


def build(user: Path | str, revision: str) -> trees.Build:
    source = sources.of_text(f"{user}@{revision}" if revision else str(user))
    assert source is not None
    return trees.build(source, lambda _: None)


def test_each_state_is_built_once_with_its_own_files(copier: Copier, user: Path) -> None:
    first, second = build(user, "main~2"), build(user, "main~1")
    assert copier.built == ["1", "2"]
    assert build(user, "main~2").side == first.side
    assert build(user, "main~2").seconds == 0
    assert copier.built == ["1", "2"]
    for made, content in ((first, "1"), (second, "2")):
        assert (folders.cache() / f"{made.side.variables['PLACE']}/libcopied.so").read_text() == content


def test_a_state_of_a_repository_on_a_web_server_is_built(copier: Copier, user: Path) -> None:
    with repositories.served(user) as url:
        far = build(url, "main~1")
    assert copier.built == ["2"]
    assert far.side == build(user, "main~1").side, "the same files are the same build, wherever they come from"


def test_the_builds_used_last_are_kept(copier: Copier, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kept.VARIABLE, "2")
    monkeypatch.setattr(kept, "_used", {})
    said: list[str] = []
    for second, revision in enumerate(("main~2", "main~1", "main~2", "main")):
        source = sources.of_text(f"{user}@{revision}")
        assert source is not None
        made = Path(str(trees.build(source, said.append).side.variables["PLACE"]))
        for held in kept._used.values():
            os.close(held)  # as the system does when the process ends
        kept._used.clear()
        os.utime(made / "in-use", (second, second))
    assert said[-1] == "removed builds that were not used lately: 1 (more than RWKVPERF_KEPT_BUILDS=2)"
    build(user, "main~2")
    assert copier.built == ["1", "2", "1"], "the one that was used again is still there"
    build(user, "main~1")
    assert copier.built == ["1", "2", "1", "2"]


def test_a_mistake_in_the_number_of_builds_costs_none(
    copier: Copier, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kept.VARIABLE, "many")
    with pytest.raises(OptionError, match="RWKVPERF_KEPT_BUILDS='many' is no number of builds"):
        build(user, "main")
    assert copier.built == []


def test_states_with_the_same_code_have_the_same_digest(copier: Copier, user: Path) -> None:
    assert build(user, "main~2").digest == build(user, "main").digest != build(user, "main~1").digest
    assert copier.built == ["1", "2", "1"] or len(copier.built) == 3


def test_other_flags_make_another_build(copier: Copier, user: Path) -> None:
    build(user, "main")
    copier.told = ("-O3",)
    assert build(user, "main").flags == ("-O3",)
    assert len(copier.built) == 2


def test_other_flags_begin_a_new_build_tree(copier: Copier, user: Path) -> None:
    """CMake's cache would keep an option of the last build that is no longer given."""
    copier.command = "touch '{work}/cache'; " + Copier.command
    build(user, "main")
    copier.command, copier.told = "test ! -e '{work}/cache' && " + Copier.command, ("-O3",)
    build(user, "main")


def test_an_uncommitted_change_is_built_and_a_revision_ignores_it(copier: Copier, user: Path) -> None:
    repositories.write(user, {"code": "dirty"})
    build(user, "")
    build(user, "main")
    assert copier.built == ["dirty", "1"]


def test_what_does_not_build_is_absent_and_its_log_is_kept(copier: Copier, user: Path) -> None:
    copier.command = "touch '{target}/half'; echo 'x.c:1: error: no such thing'; exit 1"
    with pytest.raises(BuildError, match=r"does not build: x.c:1: error: no such thing\n.*printed: (\S+\.log)"):
        build(user, "main")
    copier.command = Copier.command
    made = build(user, "main")
    assert not (folders.cache() / f"{made.side.variables['PLACE']}/half").exists()
    assert copier.built == ["1", "1"]


def test_a_build_that_was_killed_is_made_again(copier: Copier, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", _killed)
        with pytest.raises(KeyboardInterrupt):
            build(user, "main")
    assert build(user, "main").seconds >= 0
    assert copier.built == ["1", "1"]


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_build_tree_that_a_killed_make_left_is_removed(copier: Copier, user: Path) -> None:
    copier.command, copier.killed = "echo half > '{work}/x.o'", True
    with pytest.raises(KeyboardInterrupt):
        build(user, "main")
    copier.killed = False
    copier.command = "test ! -e '{work}/x.o' && " + Copier.command
    build(user, "main")


def test_a_build_tree_stays_after_an_error(copier: Copier, user: Path) -> None:
    copier.command = "touch '{work}/x.o'; echo 'error: stop'; exit 1"
    with pytest.raises(BuildError):
        build(user, "main")
    copier.command = "test -e '{work}/x.o' && " + Copier.command
    build(user, "main")


def test_a_full_disk_is_no_fault_of_the_commit(copier: Copier, user: Path) -> None:
    copier.command = "echo 'fatal error: error writing to x.o: No space left on device'; exit 1"
    with pytest.raises(StorageError, match=r"disk became full while copied .* was built; make room"):
        build(user, "main")


def test_a_revision_before_rwkv7_is_refused_before_it_is_built(copier: Copier, user: Path) -> None:
    repositories.write(user, {"engine.h": "// older\n"})
    with pytest.raises(BuildError, match=r"does not know RWKV-7 yet .* name a later revision"):
        build(user, "")
    assert copier.built == []


def test_another_projects_repository_and_an_unknown_revision_are_refused(copier: Copier, tmp_path: Path) -> None:
    repositories.repository(tmp_path / "other", {"main.c": "x"})
    with pytest.raises(OptionError, match="no source of an engine"):
        build(tmp_path / "other", "main")
    with pytest.raises(OptionError, match="has no revision 'gone'"):
        build(tmp_path / "other", "gone")
    assert copier.built == []


def test_submodules_come_from_the_checkout_with_their_changes(copier: Copier, user: Path, tmp_path: Path) -> None:
    repositories.repository(tmp_path / "inner", {"x": "committed"})
    repositories.git(user, "submodule", "--quiet", "add", str(tmp_path / "inner"), "vendor")
    repositories.git(user, "commit", "-q", "-m", "submodule")
    repositories.write(user, {"vendor/x": "changed"})
    copier.command = "cp '{sources}/vendor/x' '{target}/libcopied.so'"
    for revision, content in (("main", "committed"), ("", "changed")):
        place = build(user, revision).side.variables["PLACE"]
        assert (folders.cache() / f"{place}/libcopied.so").read_text() == content


def test_no_compiler_is_said_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendMissingError, match=r"no no-such-compiler on PATH.*name it with CXX"):
        registry.BUILDERS["llama.cpp"].flags()


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("llama.cpp@b9868", Source("llama.cpp", "https://github.com/ggml-org/llama.cpp", "b9868")),
        ("https://host/x/llama.cpp@b9868", Source("", "https://host/x/llama.cpp", "b9868")),
        ("git@host:x/llama.cpp@b9868", Source("", "git@host:x/llama.cpp", "b9868")),
        ("rwkv @ git+https://host/rwkv.git@abc", None),
        ("rwkv@https://host/rwkv.tar.gz", None),
        ("llama-cpp-python==0.3.36", None),
        ("python3", None),
    ],
)
def test_what_names_a_source(text: str, source: Source | None) -> None:
    assert sources.of_text(text) == source


def test_an_engine_in_another_repository() -> None:
    assert sources.in_repository("llama.cpp@b1", "../fork") == "../fork@b1"
    assert sources.in_repository("llama-cpp-python==0.3.35", "../fork") == "llama-cpp-python==0.3.35"


def test_a_folder_of_an_engine_is_a_source_and_a_revision_needs_a_repository(tmp_path: Path) -> None:
    repositories.write(
        tmp_path / "e", {"include/llama.h": "", "CMakeLists.txt": "", "ggml/x": "", "pyproject.toml": ""}
    )
    assert named_builds.parse(str(tmp_path / "e")).source == Source("llama.cpp", str(tmp_path / "e"), "")
    with pytest.raises(OptionError, match="no git repository, so it has no revisions"):
        named_builds.parse(f"{tmp_path / 'e'}@main")
    with pytest.raises(OptionError, match="lacks a revision"):
        named_builds.parse(f"{tmp_path / 'e'}@")
