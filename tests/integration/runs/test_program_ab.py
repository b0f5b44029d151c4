"""A/B of programs that time themselves: whole invocations in pairs, with stand-ins for llama-bench."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.stats.paired import MIN_PAIRS
from tests.conftest import QUIET, new_cache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs are scripts with a first line")

PROGRAM = """#!{python}
import json, random, sys
if "--version" in sys.argv:
    print("version: 1.0 (build 1, commit {name})"); sys.exit()
if "--list-devices" in sys.argv:
    sys.exit()
with open({calls!r}, "a") as calls:
    calls.write({name!r} + "\\n")
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
times = [int({factor} * 1e8 * random.uniform(0.99, 1.01)) for _ in range(5)]
row = {{"build_commit": "x", "build_number": 1, "n_prompt": int(given["-p"]), "n_gen": 0, "n_depth": 0}}
print(json.dumps(row | {{"samples_ns": times}}))
"""

SMALL = (*QUIET, "--rwkv-quant=f16", "--rwkv-workload=pp16", "--rwkv-budget=1")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], Path]:
    """Makes a llama-bench of a speed, which notes each invocation in `calls`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(new_cache(tmp_path / "cache")))

    def make(name: str, factor: float) -> Path:
        path = tmp_path / name / "llama-bench"
        path.parent.mkdir()
        calls = str(tmp_path / "calls")
        path.write_text(PROGRAM.format(python=sys.executable, name=name, factor=factor, calls=calls), encoding="utf-8")
        path.chmod(0o755)
        return path

    return make


@pytest.mark.parametrize(("factor", "verdict", "code"), [(1.0, "PASS", 0), (1.3, "REGRESSION", 1)])
def test_whole_invocations_alternate_and_decide(
    factor: float,
    verdict: str,
    code: int,
    program: Callable[[str, float], Path],
    pytester: pytest.Pytester,
    tmp_path: Path,
) -> None:
    new, old = program("new", factor), program("old", 1.0)
    sides = f"--rwkv-backend=llama-bench:{new}", f"--rwkv-ab=llama-bench:{old}"
    result = pytester.runpytest_subprocess(*SMALL, *sides, timeout=300)
    assert (result.ret, verdict in result.stdout.str()) == (code, True)
    calls = (tmp_path / "calls").read_text(encoding="utf-8").split()
    assert calls[: 2 * MIN_PAIRS] == ["old", "new", "new", "old"] * (MIN_PAIRS // 2)


def test_a_program_and_an_engine_are_not_compared(
    program: Callable[[str, float], Path], pytester: pytest.Pytester
) -> None:
    new = program("new", 1.0)
    for sides, said in (
        (
            (f"--rwkv-backend=llama-bench:{new}", f"--rwkv-ab={sys.executable}"),
            "--rwkv-ab=llama-bench:/path/to/llama-bench",
        ),
        (("--rwkv-backend=reference", f"--rwkv-ab=llama-bench:{new}"), "--rwkv-backend=llama-bench:NEW"),
        ((f"--rwkv-backend=llama-bench:{new}", "--rwkv-ab=llama-bench:/none"), "--rwkv-ab=llama-bench: '/none' is not"),
    ):
        result = pytester.runpytest_subprocess(*SMALL, *sides, timeout=300)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert said in " ".join(result.stderr.str().split())
