"""The binding on a state of the crate instead of its release."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.environments.build import BuildError
from pytest_rwkvperf.environments.builders import web_rwkv
from tests.unit.environments import repositories

if TYPE_CHECKING:
    from pathlib import Path


CARGO = '[package]\nname = "web-rwkv"\nversion = "0.10.19"\n\n[dependencies]\nuid = "0.1"\nwgpu = "28.0"\n'


def test_the_binding_asks_for_the_versions_of_the_folder_and_takes_it_from_there(tmp_path: Path) -> None:
    repositories.write(tmp_path / "crate", {"Cargo.toml": CARGO})
    web_rwkv.patched_binding(tmp_path / "crate", tmp_path / "binding")
    manifest = (tmp_path / "binding" / "Cargo.toml").read_text(encoding="utf-8")
    assert 'web-rwkv = { version = "=0.10.19", default-features = false' in manifest
    assert '\nwgpu = "28.0"  #' in manifest
    assert f'[patch.crates-io]\nweb-rwkv = {{ path = "{(tmp_path / "crate").as_posix()}" }}' in manifest
    assert "locked" not in (tmp_path / "binding" / "pyproject.toml").read_text(encoding="utf-8")
    lock = (tmp_path / "binding" / "Cargo.lock").read_text(encoding="utf-8")
    assert (tmp_path / "crate" / "Cargo.lock").read_text(encoding="utf-8") == lock
    assert (tmp_path / "binding" / "src").is_dir()


def test_another_binding_makes_another_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_rwkv, "program", lambda *_: "cargo")
    monkeypatch.setattr(web_rwkv, "_BINDING", tmp_path)
    repositories.write(tmp_path, {"src/lib.rs": "one", "Cargo.lock": "1", "tests/test_model.py": "1"})
    first = web_rwkv.BUILDER.flags()
    repositories.write(tmp_path, {"tests/test_model.py": "2", "target/x.rs": "2"})
    assert web_rwkv.BUILDER.flags() == first
    repositories.write(tmp_path, {"Cargo.lock": "2"})
    assert web_rwkv.BUILDER.flags() != first


def test_without_a_checkout_or_a_version_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repositories.write(tmp_path / "crate", {"Cargo.toml": "[package]\n"})
    with pytest.raises(BuildError, match="names no version"):
        web_rwkv.patched_binding(tmp_path / "crate", tmp_path / "binding")
    monkeypatch.setattr(web_rwkv, "_BINDING", tmp_path / "none")
    with pytest.raises(BuildError, match=r"only in a checkout of pytest-rwkvperf; install it from one"):
        web_rwkv.patched_binding(tmp_path / "crate", tmp_path / "binding")
