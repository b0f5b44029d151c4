"""A/B and A/A without a run: their options, their verdicts, and what the other environment need not have."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import pytest_rwkvperf
from pytest_rwkvperf.backends import llama_cpp
from pytest_rwkvperf.core.cases import Item, Workload
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.environments.named_builds import NamedBuild
from pytest_rwkvperf.measure.record import Pairing
from pytest_rwkvperf.run.settings import Settings, read_settings
from pytest_rwkvperf.stats.verdicts import ALPHA
from pytest_rwkvperf.verdict.judged import from_json, to_json
from pytest_rwkvperf.verdict.judgement import judge_pairs
from pytest_rwkvperf.verdict.reasons import describe
from tests.unit.building import CASE, record_of, slower, throttled

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the other interpreter is a shell script")


def test_a_python_below_3_10_is_told_what_a_worker_needs(tmp_path: Path) -> None:
    bootstrap = Path(pytest_rwkvperf.__file__).parent / "worker" / "bootstrap.py"
    old = tmp_path / "old.py"
    text = bootstrap.read_text(encoding="utf-8").replace("sys.version_info", "(3, 9)")
    old.write_text(text, encoding="utf-8")
    ended = subprocess.run([sys.executable, str(old)], capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 1
    assert "a worker needs 3.10 or newer" in ended.stderr


def test_a_binding_without_llama_version_can_be_the_old_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama-cpp-python 0.3.30 has no llama_version."""
    library = SimpleNamespace()
    monkeypatch.setattr(llama_cpp, "import_module", lambda _name: library)
    monkeypatch.setattr(llama_cpp, "version", lambda _name: "0.3.30")
    assert llama_cpp.BACKEND.versions() == {"llama-cpp-python": "0.3.30"}
    library.llama_version = lambda: b"0.5.0"
    assert llama_cpp.BACKEND.versions() == {"llama-cpp-python": "0.3.30", "llama.cpp": "0.5.0"}


# Options


def read(pytester: pytest.Pytester, *arguments: str) -> Settings:
    return read_settings(pytester.parseconfig(*arguments))


def test_aa_is_ab_with_this_interpreter(pytester: pytest.Pytester) -> None:
    assert read(pytester, "--rwkv-aa").ab == NamedBuild("interpreter", sys.executable)
    assert read(pytester, "--rwkv-aa=no").ab is read(pytester).ab is None


def test_compare_ab_is_ab_with_the_baseline_and_ab_goes_before_compare(pytester: pytest.Pytester) -> None:
    assert read(pytester, "--rwkv-compare=ab").ab == NamedBuild("baseline", "baseline")
    named = read(pytester, "--rwkv-compare=stored", f"--rwkv-ab={sys.executable}").ab
    assert named == NamedBuild("interpreter", sys.executable)


def test_a_relative_interpreter_is_resolved_at_the_start(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = pytester.path / "old" / "python"
    linked.parent.mkdir()
    linked.symlink_to(sys.executable)
    monkeypatch.chdir(pytester.path)
    # Not what the link leads to: a virtual environment's Python is a link.
    assert read(pytester, "--rwkv-ab=old/python").ab == NamedBuild("interpreter", str(linked))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rwkv-aa", "--rwkv-ab=python3"], r"--rwkv-aa .*--rwkv-ab=python3 .*choose one"),
        (["--rwkv-aa", "--rwkv-save-baseline"], "run --rwkv-save-baseline by itself"),
        (["--rwkv-ab=python3", "--rwkv-save-baseline=replace"], "run --rwkv-save-baseline by itself"),
        (["--rwkv-ab=no/such/python"], r"no/such/python is no program that can be run; write a Python"),
        (["--rwkv-ab=."], r"\. has neither pyproject\.toml nor setup\.py"),
        (["--rwkv-aa=maybe"], "'maybe' is unknown; allowed: yes, no"),
    ],
)
def test_contradicting_and_invalid_options_are_refused(
    pytester: pytest.Pytester, arguments: list[str], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        read(pytester, *arguments)


# The judgement

ITEM = Item(CASE, Workload("prefill", 512))
OLD = record_of([[1_000_000 + 1000 * index, 1_000_500] for index in range(6)])


def test_a_judgement_has_both_rates_and_the_differing_versions() -> None:
    new = replace(slower(OLD, 2), versions={"llama-cpp": "2", "llama.cpp": "9"})
    found = judge_pairs(Pairing(new, replace(OLD, versions={"llama-cpp": "1"})), ITEM, 0.05, 4)
    assert found.verdict == "REGRESSION"
    assert found.reason == ("the ratio lies wholly below 0.952; 6 pairs, llama-cpp 1 → 2, llama.cpp none → 9")
    assert found.new is not None
    assert found.old is not None
    assert found.old.median == pytest.approx(2 * found.new.median)
    assert found.comparison is not None
    assert found.comparison.ratio == pytest.approx(0.5)
    assert found.comparison.alpha == ALPHA / 4
    assert from_json(to_json(found)) == found
    assert "ratio  0.500 (new / old, of the fast repetitions)" in describe(found)


def test_a_throttled_gpu_does_not_void_pairs() -> None:
    found = judge_pairs(Pairing(throttled(slower(OLD, 2)), throttled(OLD)), ITEM, 0.05, 1)
    assert (found.verdict, found.voided) == ("REGRESSION", "")


def test_fewer_threads_than_the_cases_are_mentioned() -> None:
    found = judge_pairs(Pairing(*[replace(OLD, fewer_threads=1)] * 2), ITEM, 0.05, 1)
    assert found.reason.endswith("; with 1 of 2 threads, because other processes used the rest of the processors")


def test_equal_versions_are_mentioned() -> None:
    found = judge_pairs(Pairing(OLD, OLD), ITEM, 0.05, 1)
    assert (found.verdict, found.reason) == (
        "PASS",
        "the ratio lies wholly above 0.952; 6 pairs, the same versions on both sides",
    )


# What a worker imports


def test_a_worker_imports_only_the_standard_library_and_numpy() -> None:
    """Without its site-packages, and with a NumPy that is an empty module; a `.pth` is looked at without NumPy too."""
    script = (
        f"import sys, types; sys.path.insert(0, {str(Path(pytest_rwkvperf.__file__).parents[1])!r})\n"
        "import pytest_rwkvperf.models.pth_check, pytest_rwkvperf.backends.registry as registry\n"
        "import pytest_rwkvperf.worker.child\n"
        "for name in ('rwkv', 'llama-cpp', 'web-rwkv'): registry.load(registry.BUILT_IN[name])\n"
        "sys.modules['numpy'] = types.ModuleType('numpy')\n"
        "import pytest_rwkvperf.worker.parity\n"
        "print('imported')\n"
    )
    ended = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert (ended.stdout.strip(), ended.stderr) == ("imported", "")
