from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_rwkvperf.cli import inspect, model_files, synth
from pytest_rwkvperf.cli.main import COMMANDS, main
from pytest_rwkvperf.core import subprocesses
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.models import derive, gguf, st, synthetic
from pytest_rwkvperf.models.file_format import read_header
from pytest_rwkvperf.models.header import Header
from pytest_rwkvperf.models.shapes import SHAPES, Shape, tensor_specs
from pytest_rwkvperf.models.synthetic import SyntheticModel
from pytest_rwkvperf.models.weights import MappedWeights

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., tuple[int, str, str]]

TINY = Shape(layers=2, width=64, rank_w=16, rank_a=24, rank_v=8, rank_g=40, vocabulary=128)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, a cache beside it, and `tiny` among the shapes."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(synthetic, "SHAPES", {**SHAPES, "tiny": TINY})
    monkeypatch.setattr(synth, "SHAPES", {**SHAPES, "tiny": TINY})
    monkeypatch.setattr(gguf, "world_tokens", lambda: (b"<s>", b"a", b"b"))
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line; gives the status, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = int(ended.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def wide(path: str) -> None:
    """A float32 .gguf whose values use every bit."""
    random = np.random.default_rng(0)
    tensors = {spec.name: random.standard_normal(spec.shape).astype(np.float32) for spec in tensor_specs(TINY)}
    derive.write(MappedWeights(TINY, "f32", tensors), Path(path), "gguf", "wide", lambda *_: None, "f32")


class TestSynth:
    def test_the_default_is_a_pth_in_the_working_folder(self, run: Run) -> None:
        status, out, _ = run("synth", "tiny")
        assert status == 0
        assert out.startswith("synthetic-tiny.pth: ")
        assert Path("synthetic-tiny.pth").exists()

    @pytest.mark.parametrize("kind", ["pth", "st", "gguf"])
    def test_the_format_follows_from_the_output(self, kind: str, run: Run) -> None:
        assert run("synth", "tiny", "--output", f"a.{kind}", "--seed", "7")[0] == 0
        status, out, _ = run("inspect", f"a.{kind}") if kind != "pth" else (0, "2 layers", "")
        assert (status, "2 layers" in out) == (0, True)

    def test_a_seed_is_in_the_name_and_in_the_weights(self, run: Run) -> None:
        run("synth", "tiny", "--format", "st", "--seed", "3")
        spec = tensor_specs(TINY)[0]
        expected = SyntheticModel("tiny:3", TINY, 3).rows(spec, 0, 9, "f16")
        assert (st.read_header(Path("synthetic-tiny-3.st")).weights().rows(spec, 0, 9) == expected).all()

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["2.8b"], "invalid choice: '2.8b'"),
            (["tiny", "--seed", "x7"], "'x7' is not a whole number"),
            (["tiny", "--format", "st", "--output", "a.gguf"], "are different formats"),
            (["tiny", "--output", "a.bin"], "does not end in .pth, .st"),
            (["tiny", "--output", "a.st", "--dtype", "bf16"], "web-rwkv reads f16 only"),
        ],
    )
    def test_invalid_arguments_are_refused(self, arguments: list[str], reason: str, run: Run, place: Path) -> None:
        status, out, err = run("synth", *arguments)
        assert (status, out) == (2, "")
        assert reason in err
        assert err.count("\n") == 1
        assert err.endswith("see rwkvperf synth --help\n")
        assert list(place.iterdir()) == []


class TestConvert:
    @pytest.mark.parametrize("source", ["st", "gguf"])
    @pytest.mark.parametrize("target", ["pth", "st", "gguf"])
    def test_a_synthetic_model_stays_exact(self, source: str, target: str, run: Run) -> None:
        run("synth", "tiny", "--output", f"a.{source}")
        status, out, err = run("convert", f"a.{source}", f"b.{target}")
        assert status == 0, err
        assert "values are exact" in out
        assert ("blk.0.time_mix_v0.weight" in out) == (target == "gguf")

    def test_rounded_values_are_counted(self, run: Run) -> None:
        wide("wide.gguf")
        status, out, _ = run("convert", "wide.gguf", "b.st")
        assert status == 0
        total = sum(spec.size for spec in tensor_specs(TINY))
        assert f" of {total:,} values, in " in out
        assert "were rounded to nearest even" in out

    def test_the_precision_can_be_chosen(self, run: Run) -> None:
        run("synth", "tiny", "--output", "a.st")
        assert run("convert", "a.st", "b.gguf", "--dtype", "f32")[0] == 0
        assert read_header(Path("b.gguf")).quant == "f32"

    def test_a_synthetic_model_can_be_converted(self, run: Run) -> None:
        assert run("convert", "synthetic:tiny", "b.st")[0] == 0
        assert read_header(Path("b.st")).shape == TINY

    def test_a_quantized_file_is_refused(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        run("synth", "tiny", "--output", "a.gguf")
        monkeypatch.setattr(Header, "quantized", True)
        status, _, err = run("convert", "a.gguf", "b.st")
        assert (status, "nothing can be made from it" in err) == (1, True)
        assert not Path("b.st").exists()

    def test_an_existing_target_is_kept_unless_forced(self, run: Run) -> None:
        run("synth", "tiny", "--output", "a.st")
        Path("b.gguf").write_text("mine")
        status, _, err = run("convert", "a.st", "b.gguf")
        assert (status, "--force" in err) == (1, True)
        assert Path("b.gguf").read_text() == "mine"
        assert run("convert", "a.st", "b.gguf", "--force")[0] == 0
        assert read_header(Path("b.gguf")).shape == TINY

    @pytest.mark.parametrize(
        ("arguments", "status", "reason"),
        [
            (["absent.st", "b.gguf"], 1, "'{here}/absent.st' does not exist"),
            (["a.st", "a.st", "--force"], 2, "is the source itself"),
            (["a.st", "b"], 2, "does not end in"),
            (["a.st", "nowhere/b.gguf"], 1, "the folder 'nowhere' does not exist"),
            (["a.st", "folder.gguf", "--force"], 1, "exists"),
            (["nonsense", "b.gguf"], 1, "unknown model 'nonsense'"),
            (["a.st"], 2, "required: TARGET"),
            (["a.st", "b.gguf", "--dtype", "q8_0"], 2, "invalid choice: 'q8_0'"),
        ],
    )
    def test_invalid_arguments_are_refused(
        self, arguments: list[str], status: int, reason: str, run: Run, place: Path
    ) -> None:
        run("synth", "tiny", "--output", "a.st")
        Path("folder.gguf").mkdir()
        code, out, err = run("convert", *arguments)
        assert (code, out) == (status, "")
        assert reason.format(here=place) in err.splitlines()[-1]
        assert sorted(path.name for path in place.iterdir()) == ["a.st", "folder.gguf"]

    def test_ctrl_c_leaves_nothing(self, run: Run, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
        def interrupted(*_arguments: object) -> None:
            raise KeyboardInterrupt

        run("synth", "tiny", "--output", "a.st")
        monkeypatch.setattr(MappedWeights, "rows", interrupted)
        status, out, err = run("convert", "a.st", "b.gguf")
        assert (status, out) == (130, "")
        assert err.splitlines()[-1] == "rwkvperf: interrupted; nothing was left behind"
        assert [path.name for path in place.iterdir()] == ["a.st"]


class TestInspect:
    @pytest.mark.parametrize("kind", ["st", "gguf"])
    def test_a_file_is_described(self, kind: str, run: Run) -> None:
        run("synth", "tiny", "--output", f"a.{kind}")
        status, out, _ = run("inspect", f"a.{kind}")
        values = dict(line.split("  ", 1) for line in out.splitlines())
        assert status == 0
        assert values["shape"].strip() == "2 layers, width 64, 1 heads of 64"
        assert values["ranks"].strip() == "w 16, a 24, v 8, g 40"
        assert values["quant"].strip() == "f16"
        assert values["parameters"].strip().startswith(f"{TINY.parameters:,}")
        assert len(values["content hash"].strip()) == 64

    def test_the_hash_is_the_same_in_all_formats(self, run: Run) -> None:
        hashes = set()
        for kind in ("st", "gguf"):
            run("synth", "tiny", "--output", f"a.{kind}")
            hashes.add(run("inspect", f"a.{kind}")[1].splitlines()[-1])
        assert len(hashes) == 1

    def test_tensors_are_listed_on_request(self, run: Run) -> None:
        run("synth", "tiny", "--output", "a.gguf")
        assert "blk.1.channel_mix_key.weight" not in run("inspect", "a.gguf")[1]
        listed = [line.split() for line in run("inspect", "a.gguf", "--tensors")[1].splitlines()]
        assert ["blk.1.channel_mix_key.weight", "f16", "256", "×", "64", "32,768"] in listed  # noqa: RUF001

    @pytest.mark.parametrize(
        ("model", "status", "reason"), [("synthetic:tiny", 2, "is not a file"), ("a.st", 1, "is a web page")]
    )
    def test_invalid_models_are_refused(self, model: str, status: int, reason: str, run: Run) -> None:
        Path("a.st").write_text("<html>")
        code, out, err = run("inspect", model)
        assert (code, out) == (status, "")
        assert reason in err.splitlines()[-1]


def test_help_names_every_command(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    assert all(f"    {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_an_example(name: str, run: Run) -> None:
    status, out, _ = run(name, "--help")
    assert status == 0
    assert f"  rwkvperf {name} " in out


@pytest.mark.parametrize("arguments", [[], ["nope"], ["--nope"], ["inspect"], ["inspect", "a", "--tensor"]])
def test_invalid_arguments_are_one_line_of_error(arguments: list[str], run: Run) -> None:
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(("name", "kind"), [("a.PTH", "pth"), ("a.safetensors", "st"), ("b.c.gguf", "gguf")])
def test_the_format_follows_from_the_suffix(name: str, kind: str) -> None:
    assert model_files.format_of(Path(name)) == kind
    with pytest.raises(OptionError):
        model_files.format_of(Path(name + "x"))


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "10000000", "soon"])
def test_an_invalid_fleet_timeout_is_refused(seconds: str, run: Run) -> None:
    status, _, err = run("fleet", "--address=auto", f"--timeout={seconds}", "--", "--rwkv-backend=all")
    assert status == 2
    assert f"--timeout='{seconds}' is not a number above 0 and up to 9999999" in err


@pytest.mark.skipif(sys.platform == "win32", reason="there SIGTERM ends a process without a word")
@pytest.mark.parametrize(
    ("first", "code", "message"),
    [
        (signal.SIGINT, 130, "rwkvperf: interrupted; nothing was left behind\n"),
        (signal.SIGTERM, 143, ""),
    ],
)
def test_a_sigterm_after_another_signal_is_ignored(
    first: signal.Signals, code: int, message: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidied = []

    def work(*_: object) -> int:
        try:
            signal.raise_signal(first)
        finally:
            signal.raise_signal(signal.SIGTERM)
            tidied.append(first)
        return 0

    monkeypatch.setattr(inspect, "run", work)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    status, _, err = run("inspect", "a.st")
    assert (status, err, tidied) == (code, message, [first])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(("ended", "status"), [(1, 1), (-9, 137)])
def test_ab_returns_the_status_of_pytest_as_a_shell_does(
    ended: int, status: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocesses, "run", lambda command: subprocess.CompletedProcess(command, ended))
    assert run("ab")[0] == status
