"""`rwkvperf bisect` from end to end: real environments, a local index, and an engine whose speed a package decides."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from pytest_rwkvperf.bisect import comparing
from pytest_rwkvperf.bisect.states import Prepared
from pytest_rwkvperf.cli.main import main
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.environments.index import releases
from pytest_rwkvperf.history import address
from pytest_rwkvperf.history.database import Database
from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.store import files
from tests.conftest import new_cache

FACTORS = {"0.9": -1.0, "1.0": 1.0, "1.1": 1.0, "1.2": None, "1.3": 2.0, "1.4": 2.0}
"""How long everything takes with a release; None is one that does not build, below zero one that does not run."""


def wheel(folder: Path, version: str, factor: float | None) -> None:
    """A wheel by hand (PyPA's binary distribution format); pip refuses one that lacks its metadata."""
    info = f"scripted_speed-{version}.dist-info"
    name = f"scripted_speed-{version}-py3-none-any.whl"
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("scripted_speed.py", f"FACTOR = {factor}\n")
        if factor is not None:
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: scripted-speed\nVersion: {version}\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of one package (PEP 503) in `simple`, and a cache for what is built of it in `cache`."""
    served = tmp_path_factory.mktemp("served")
    new_cache(served / "cache")
    folder = served / "simple" / "scripted-speed"
    folder.mkdir(parents=True)
    for version, factor in FACTORS.items():
        wheel(folder, version, factor)
    links = "".join(f'<a href="{path.name}">{path.name}</a>' for path in sorted(folder.glob("*.whl")))
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>", encoding="utf-8")
    return served


@pytest.fixture
def index(served: Path, tmp_path: Path, scripted_environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The index, its cache, and a folder to call from."""
    scripted_environment.setenv("PIP_INDEX_URL", (served / "simple").as_uri())
    scripted_environment.setenv("XDG_CACHE_HOME", str(served / "cache"))
    (tmp_path / "here").mkdir()
    scripted_environment.chdir(tmp_path / "here")
    return scripted_environment


OPTIONS = ["--", "--rwkv-quant=fp16", "--rwkv-workload=pp16", "--rwkv-budget=0.01", "--rwkv-tolerance=40%"]


@pytest.mark.skipif(sys.platform == "win32", reason="takes a minute there")
@pytest.mark.usefixtures("index")
def test_the_slow_release_is_named_and_the_broken_one_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    options = [*OPTIONS, "--rwkv-history=runs.db"]
    assert main(["bisect", "scripted-speed", "1.0..1.4", "--backend", "scripted", *options]) == 0
    told = capsys.readouterr().out
    assert "scripted-speed 1.0 … scripted-speed 1.4: 5 states" in told
    assert "scripted-speed 1.4: slower: fp16 pp16 REGRESSION 100.0% slower" in told
    assert "scripted-speed 1.2: does not build: scripted-speed==1.2 cannot be installed" in told
    culprit = "scripted-speed 1.3 is slower (or one of those that could not be measured: scripted-speed 1.2); "
    assert f"{culprit}scripted-speed 1.1 is not.\n" in told
    assert "confirmed against the state before it" in told
    assert "rwkvperf ab scripted-speed==1.1 scripted-speed==1.3 -- --rwkv-quant=fp16" in told
    # One release was not measured, as it cannot be installed.
    assert len(Database(address.parse("runs.db", Path())).runs()) == told.count(" to measure)") - 1, (
        "a comparison is not stored"
    )


@pytest.mark.usefixtures("index")
def test_an_oldest_release_that_does_not_run_ends_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bisect", "scripted-speed", "0.9..1.4", "--backend", "scripted", *OPTIONS]) == 2
    told = capsys.readouterr()
    assert "scripted-speed 0.9 cannot be measured: " in told.err
    assert "no such thing in this release" in told.err
    assert "Name a later one as GOOD, or correct the options after --." in told.err
    assert "scripted-speed 1.3" not in told.out + told.err, "another one was asked as well"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--rwkv-quant=fp61"],
            "quant 'fp61' is known to none of the backends in use (did you mean 'fp16'?); allowed: scripted: fp16",
        ),
        (["--rwkv-qant=fp16"], "unrecognized arguments: --rwkv-qant=fp16"),
        (
            ["-k", "nothing-of-this-name"],
            "nothing to measure: every test that measures (4) was deselected (-k 'nothing-of-this-name')",
        ),
    ],
)
@pytest.mark.usefixtures("index")
def test_a_wrong_pytest_option_ends_the_search(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bisect", "scripted-speed", "1.0..1.4", "--backend", "scripted", "--", *options]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert "correct the options after --" in told.err
    assert "scripted-speed==1.4" not in told.out + told.err, "another release was asked"
    assert "measuring " not in told.out + told.err
    assert list(Path.cwd().iterdir()) == [], "it left something behind"


def test_an_engine_missing_from_the_oldest_release_is_an_error(
    scripted_environment: pytest.MonkeyPatch,
) -> None:
    for name in ("PYTHONPATH", "PYTEST_ADDOPTS"):
        scripted_environment.delenv(name)
    bare = str(Path(sys.base_prefix, "bin", "python3"))
    with pytest.raises(comparing.OldStateError, match=f"--rwkv-ab={bare}: llama-cpp is not installed"):
        comparing.compare(
            Prepared(sys.executable, (), sys.executable), Prepared(bare, (), bare), "llama-cpp", OPTIONS[2:]
        )


@pytest.mark.parametrize(
    ("package", "oldest", "newest", "said"),
    [
        ("scripted-speed", "1.0", "7", "the index lacks scripted-speed 1.0 or 7; its newest are 0.9, 1.0"),
        ("scripted-speed", "new", "1.4", "Invalid version: 'new'; write OLD..NEW"),
        ("nothing-of-this-name", "1", "2", "the index lists no versions of nothing-of-this-name"),
        ("--upgrade", "1", "2", "is not a package name"),
    ],
)
@pytest.mark.usefixtures("index")
def test_unknown_packages_and_versions_are_refused(package: str, oldest: str, newest: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        releases(package, oldest, newest)


@pytest.mark.parametrize(("oldest", "newest"), [("1.4", "1.0"), ("1.0", "1.0"), ("1.0", "1")])
def test_a_descending_range_is_refused_without_asking_the_index(
    oldest: str, newest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_rwkvperf.environments.index._pip", lambda *_: pytest.fail("the index was asked"))
    with pytest.raises(OptionError, match=rf"{oldest}\.\.{newest}: OLD must be older than NEW; write for example"):
        releases("scripted-speed", oldest, newest)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rwkv", "1.0"], "'1.0' is not a range"),
        (["numpy", "1..2"], "no backend is known for numpy; add --backend"),
        (
            ["rwkv", "1..2", "--backend", "lama-cpp"],
            "--backend='lama-cpp' is unknown (did you mean 'llama-cpp'?); allowed: all, rwkv, llama-cpp",
        ),
    ],
)
def test_wrong_arguments_are_refused_without_asking_the_index(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_rwkvperf.environments.index._pip", lambda *_: pytest.fail("the index was asked"))
    assert main(["bisect", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture
def project(index: pytest.MonkeyPatch) -> Path:  # noqa: ARG001 - has made the folder to call from
    """The folder that the command is called from, with tests and settings that fail any pytest that uses them."""
    here = Path.cwd()
    (here / "test_mine.py").write_text("def test_unused(): assert False\n", encoding="utf-8")
    (here / "conftest.py").write_text("raise RuntimeError('unused')\n", encoding="utf-8")
    (here / "pytest.ini").write_text("[pytest]\naddopts = --unused\n", encoding="utf-8")
    return here


def test_ab_ignores_tests_and_settings_of_this_folder_and_stores_in_it(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    brought = {path.name for path in project.iterdir()}
    assert main(["ab", "--backend", "scripted", *OPTIONS, "--rwkv-history=runs.db"]) == 0
    told = capfd.readouterr().out
    assert "1 passed" in told
    assert f"in alternation with {sys.executable}" in told
    assert len(Database(address.parse("runs.db", project)).runs()) == 1
    baseline = files.read(files.path_for(project / "baselines", fingerprint.read()))
    assert baseline is not None
    assert baseline.noise
    assert {path.name for path in project.iterdir()} == brought | {"runs.db", "baselines"}
