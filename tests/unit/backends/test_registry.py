"""Backends by name: the built-in ones, and those of distributions that are really found on the path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.engine import Backend
from pytest_rwkvperf.core.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path

IN_ALL = ["rwkv", "llama-cpp", "web-rwkv"]

MODULE = """
from types import SimpleNamespace
from pytest_rwkvperf.backends.rwkv_pip import RwkvPip

GOOD = RwkvPip(name="zeta")
REQUIRED = "name format install no_device quants standard_chunk accepts standard_quants versions devices open".split()
SHORT = SimpleNamespace(**{part: getattr(GOOD, part) for part in REQUIRED})
NOT_ONE = SimpleNamespace(**{part: getattr(GOOD, part) for part in REQUIRED[1:]})
"""
"""`SHORT` neither inherits from this project's classes nor has the parts that have defaults."""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with an installed distribution that offers three backends."""
    information = tmp_path / "engines_of_others-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: engines-of-others\nVersion: 1.0\n", "utf-8")
    lines = ["[pytest_rwkvperf.backends]", "zeta = others:GOOD", "alpha = others:GOOD", "rwkv = others:IMPOSTOR"]
    (information / "entry_points.txt").write_text("\n".join(lines), "utf-8")
    (tmp_path / "others.py").write_text(MODULE, "utf-8")
    (tmp_path / "half.py").write_text("import a_module_that_nobody_has\n", "utf-8")
    (tmp_path / "broken.py").write_text("raise RuntimeError('another CUDA than the driver has')\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_a_built_in_backend_loads_without_its_engine_and_goes_by_its_name(name: str) -> None:
    backend = registry.load(registry.locations()[name])
    assert isinstance(backend, Backend)
    assert backend.name == name


def test_all_is_every_backend() -> None:
    places, by_hand = registry.choose("all")
    assert list(places)[:3] == IN_ALL == list(registry.IN_ALL)
    assert not places.keys() & registry.BY_HAND_ONLY
    assert not by_hand


def test_what_is_made_to_be_read_is_measured_where_it_is_named() -> None:
    assert list(registry.choose("rwkv7-hf,reference")[0]) == ["rwkv7-hf", "reference"]


def test_a_distribution_is_measured_by_the_first_engine_that_it_is() -> None:
    known = registry.by_distribution()
    assert (known["torch"], known["rwkv7-hf"], known["llama-cpp-python"]) == ("rwkv", "rwkv7-hf", "llama-cpp")
    assert known["rwkvperf-web-rwkv"] == "web-rwkv"


def test_backends_named_by_hand_keep_their_order_and_count_once() -> None:
    places, by_hand = registry.choose(" web-rwkv ,rwkv,,web-rwkv")
    assert list(places) == ["web-rwkv", "rwkv"]
    assert places["rwkv"] == registry.BUILT_IN["rwkv"]
    assert by_hand


@pytest.mark.parametrize(
    ("text", "named"),
    [("vllm", "vllm"), ("rwkv,vllm", "vllm"), ("RWKV", "RWKV"), ("ALL", "ALL"), (",", ",")],
)
def test_an_unknown_backend_is_refused_with_the_known_ones(text: str, named: str) -> None:
    with pytest.raises(OptionError, match="allowed: all, rwkv, llama-cpp, web-rwkv") as caught:
        registry.choose(text)
    assert f"--rwkv-backend={named!r} is unknown" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("llama_cpp", "llama-cpp"), ("llamacpp", "llama-cpp"), ("Web_RWKV", "web-rwkv"), ("ALL", "all"), ("vllm", None)],
)
def test_a_backend_in_another_spelling_is_asked_back(text: str, meant: str | None) -> None:
    with pytest.raises(OptionError) as caught:
        registry.choose(text)
    assert (f"(did you mean {meant!r}?)" in str(caught.value)) == (meant is not None)
    assert meant is not None or "did you mean" not in str(caught.value)


def test_all_with_other_names_is_refused() -> None:
    with pytest.raises(OptionError, match="write all alone"):
        registry.choose("rwkv,all")


@pytest.mark.usefixtures("third_party")
def test_another_distributions_backends_come_after_the_built_in_ones_by_name() -> None:
    places = registry.locations()
    assert list(places)[: len(registry.BUILT_IN)] == list(registry.BUILT_IN)
    assert [name for name in places if places[name] == "others:GOOD"] == ["alpha", "zeta"]
    assert list(registry.choose("zeta")[0].values()) == ["others:GOOD"]
    assert registry.load("others:GOOD").name == "zeta"


@pytest.mark.usefixtures("third_party")
def test_a_backend_that_does_not_inherit_gets_the_defaults() -> None:
    backend = registry.load("others:SHORT")
    assert (backend.name, backend.accepts("fp16"), backend.accepts("q8_0")) == ("zeta", True, False)
    assert (backend.max_chunk, backend.tells_logits, backend.file_quant("fp16")) == (None, True, None)
    assert (backend.emulation("fp16"), backend.environment("cpu"), backend.announcement("fp16")) == ("", {}, "")


@pytest.mark.usefixtures("third_party")
def test_an_entry_point_cannot_replace_a_built_in_backend() -> None:
    assert registry.locations()["rwkv"] == registry.BUILT_IN["rwkv"]


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("a_module_that_nobody_has:GOOD", "cannot be imported .*a_module_that_nobody_has"),
        ("half:GOOD", "cannot be imported .*a_module_that_nobody_has"),
        ("broken:GOOD", "cannot be imported .*another CUDA"),
        ("others:LOST", "cannot be imported .*LOST"),
        ("others", "cannot be imported"),
        ("others:NOT_ONE", "is not a backend: it must be an instance"),
    ],
)
def test_an_object_that_is_not_a_backend_is_refused(location: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        registry.load(location)
    assert repr(location) in str(caught.value)
