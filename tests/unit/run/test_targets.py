"""What a case is prepared with, as a witness counts it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.software import Distribution, Software
from pytest_rwkvperf.environments import build
from pytest_rwkvperf.environments.build import BuildError
from pytest_rwkvperf.measure.process import Target
from pytest_rwkvperf.run import targets
from pytest_rwkvperf.run.targets import Targets
from pytest_rwkvperf.witnesses.instructions import Instructions
from tests.unit.building import CASE, MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.run.discovery import FoundEngine

VARIABLE = "LLAMA_CPP_LIB_PATH"


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Targets:
    monkeypatch.setattr(Instructions, "absence", lambda _: "")
    nano = SimpleNamespace(file_of=lambda *_: SimpleNamespace(path=tmp_path / "nano.gguf"))
    monkeypatch.setattr(targets, "TestedModel", lambda *_: nano)
    monkeypatch.setattr(build, "python_of", lambda *_: "twin")
    monkeypatch.delenv(VARIABLE, raising=False)
    progress: Any = SimpleNamespace(line=lambda _: None)
    return Targets(cast("Any", None), cast("Any", None), progress)


def seen(prepared: Targets, environment: dict[str, str | None], account: str = "AVX512 = 1") -> Target:
    engine = Distribution("llama-cpp-python", "0.3.36", "d" * 64)
    found: Any = SimpleNamespace(
        backend=SimpleNamespace(distributions=("llama-cpp-python",)),
        software=Software("CPython 3.11.7", "linux-x86_64", (engine,), build=account),
    )
    target = Target(
        case=CASE,
        location="",
        environment=environment,
        python="python",
        model=MODEL,
        path=cast("Any", None),
        device=Device("cpu", "CPU", "cpu"),
        expected=(),
        known_deep=None,
    )
    return prepared.seen_by(Instructions(), target, cast("FoundEngine", found))


def test_an_engine_with_avx_512_is_counted_by_its_twin(prepared: Targets) -> None:
    assert seen(prepared, {}).python == "twin"
    assert seen(prepared, {}, "AVX2 = 1").python == "python"


def test_libraries_that_a_side_or_the_environment_names_have_no_twin(
    prepared: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BuildError, match="the libraries in /side were compiled"):
        seen(prepared, {VARIABLE: "/side"})
    assert seen(prepared, {VARIABLE: "/side"}, "AVX2 = 1").python == "python"
    monkeypatch.setenv(VARIABLE, "/outside")
    with pytest.raises(BuildError, match="the libraries in /outside were compiled"):
        seen(prepared, {})
    assert seen(prepared, {VARIABLE: None}).python == "twin", "the side unsets it"
