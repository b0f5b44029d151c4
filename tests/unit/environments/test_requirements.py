from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.environments import named_builds, requirements

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("llama-cpp-python==0.3.35", "llama-cpp-python==0.3.35"),
        ("rwkv === 0.8.31", "rwkv==0.8.31"),
        (f"rwkv @ git+https://host/rwkv.git@{'a' * 40}", f"rwkv @ git+https://host/rwkv.git@{'a' * 40}"),
        ("rwkv @ https://host/rwkv-0.8.31.tar.gz", "rwkv @ https://host/rwkv-0.8.31.tar.gz"),
    ],
)
def test_a_requirement_names_one_build(text: str, identity: str) -> None:
    named = named_builds.parse(text)
    assert named.kind == "requirement"
    assert named.requirement is not None
    assert named.requirement.identity == identity


@pytest.mark.parametrize("text", ["llama-cpp-python", "rwkv>=0.8", "rwkv==0.8.*", "rwkv==1,==2", "what is this?"])
def test_an_open_requirement_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"names?|write"):
        named_builds.parse(text)


def test_a_branch_is_pinned_to_its_commit(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    found = requirements.of_text(f"thing @ git+file://{tmp_path}@main#subdirectory=python")
    assert found.argument == f"thing @ git+file://{tmp_path}@{commit}#subdirectory=python"
    with pytest.raises(OptionError, match="git knows no gone"):
        requirements.of_text(f"thing @ git+file://{tmp_path}@gone")


def test_a_source_folder_is_known_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    first = requirements.source_folder(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref", encoding="utf-8")
    assert requirements.source_folder(tmp_path).identity == first.identity
    (tmp_path / "new.py").write_text("x = 1\n", encoding="utf-8")
    assert requirements.source_folder(tmp_path).identity != first.identity


def test_a_folder_without_a_project_and_a_missing_wheel_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"neither pyproject.toml nor setup.py"):
        named_builds.parse(str(tmp_path))
    with pytest.raises(OptionError, match="cannot be read"):
        named_builds.parse(str(tmp_path / "thing-1.0-py3-none-any.whl"))
    with pytest.raises(OptionError, match="is no wheel"):
        named_builds.parse(str(tmp_path / "thing.whl"))
    with pytest.raises(OptionError, match=r"no llama\.cpp library"):
        named_builds.parse(f"lib:{tmp_path}")


def test_libraries_and_interpreters(tmp_path: Path) -> None:
    (tmp_path / "libllama.so").touch()
    assert named_builds.parse(f"lib:{tmp_path}").text == str(tmp_path)
    assert named_builds.parse(sys.executable) == named_builds.NamedBuild("interpreter", sys.executable)
    assert named_builds.parse("baseline").kind == "baseline"
    with pytest.raises(OptionError, match="no program that can be run"):
        named_builds.parse(str(tmp_path / "bin" / "python"))
