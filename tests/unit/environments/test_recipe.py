from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.software import Distribution, Software
from pytest_rwkvperf.environments import recipe, wheels
from pytest_rwkvperf.environments.build import BuildError
from pytest_rwkvperf.worker import installed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENGINE = Distribution("rwkv", "0.8.32", "d" * 64)
HERE = Software("CPython 3.11.7", "linux-x86_64", (ENGINE, Distribution("torch", "2.13.0", "e" * 64)))


def recorded(**changes: str) -> Software:
    return replace(HERE, distributions=(replace(ENGINE, **changes), HERE.distributions[1]))


def test_the_same_software_needs_nothing() -> None:
    assert recipe.requirements_of(HERE, HERE, None) == []


@pytest.mark.parametrize(
    ("origin", "argument"),
    [
        ("", "rwkv==0.8.31"),
        ({"url": "https://host/r.git", "vcs_info": {"vcs": "git", "commit_id": "a" * 40}},
         f"rwkv @ git+https://host/r.git@{'a' * 40}"),
        ({"url": "https://host/r.zip", "archive_info": {}, "subdirectory": "py"},
         "rwkv @ https://host/r.zip#subdirectory=py"),
    ],
)  # fmt: skip
def test_only_what_differs_is_installed_from_where_it_came(origin: object, argument: str) -> None:
    software = recorded(version="0.8.31", digest="f" * 64, origin=json.dumps(origin) if origin else "")
    (requirement,) = recipe.requirements_of(software, HERE, None)
    assert requirement.argument == argument


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": "0.1.0+source"}, "built locally and is on no index"),
        ({"version": "1", "origin": '{"url": "file:///home/me/rwkv", "dir_info": {}}'}, "file:///home/me/rwkv"),
    ],
)
def test_what_cannot_be_had_again_is_named(changes: dict[str, str], reason: str) -> None:
    with pytest.raises(BuildError, match=f"{reason}.*--rwkv-keep-wheels"):
        recipe.requirements_of(recorded(digest="f" * 64, **changes), HERE, None)


def test_a_kept_wheel_is_found_by_its_hash_and_holds_what_was_installed(tmp_path: Path) -> None:
    software = installed.read(["pluggy"], "", {})
    (pluggy,) = software.distributions
    (made,) = wheels.keep(tmp_path, [pluggy])
    assert made.name == f"pluggy-{pluggy.version}-py3-none-any.whl"
    assert wheels.keep(tmp_path, [pluggy]) == []
    assert wheels.find(tmp_path, replace(pluggy, digest="0" * 64)) is None
    other = replace(software, distributions=(replace(pluggy, version="0"),))
    (requirement,) = recipe.requirements_of(software, other, tmp_path)
    assert requirement.argument == str(made)


def test_differences_name_releases_builds_and_sources() -> None:
    other = replace(
        recorded(version="0.8.31"),
        modules={"rwkv": "1"},
        libraries={"libggml-cpu.so": "2"},
        build="CPU : AVX512 = 1 | FMA = 1",
        environment={"RWKV_JIT_ON": "1"},
    )
    new = replace(HERE, build="CPU : AVX512 = 0 | FMA = 1", modules={"rwkv": "3"}, libraries={"libggml-cpu.so": "4"})
    assert other.differences(new) == [
        "rwkv 0.8.31 → 0.8.32",
        "environment variable RWKV_JIT_ON=1 → ",
        "build: AVX512 1 → 0",
        "libggml-cpu.so differs",
        "the source of rwkv differs",
    ]
    assert Software.from_json(json.loads(json.dumps(other.to_json()))) == other
    assert other.identity != new.identity == replace(new).identity


def test_an_edited_module_of_the_same_version_is_other_software(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Callable[[], Software] = lambda: installed.read([], "", {})  # noqa: E731 - called twice
    (tmp_path / "edited_engine.py").write_text("SPEED = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("edited_engine")
    before = read()
    (tmp_path / "edited_engine.py").write_text("SPEED = 9\n", encoding="utf-8")
    assert before.differences(read()) == ["the source of edited_engine differs"]
