"""Options: what they become, which of command line and ini file wins, and what is refused."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.environments.named_builds import NamedBuild
from pytest_rwkvperf.reports.formats import ReportRequest
from pytest_rwkvperf.run import options
from pytest_rwkvperf.run.option_values import read_share
from pytest_rwkvperf.run.settings import Settings, read_sets, read_settings
from tests.unit.building import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path("root")
WORDS = st.lists(st.sampled_from(["fp32", "q8_0", "int8@31", "nf4"]), unique=True)


class Given:
    """A configuration with some options on the command line and some in the ini file."""

    rootpath = ROOT
    invocation_params = SimpleNamespace(dir=ROOT / "called from")

    def __init__(self, command_line: dict[str, str], ini: dict[str, str]) -> None:
        self._values = {one.flag: _as_pytest_gives_it(one, command_line.get(one.name)) for one in options.OPTIONS}
        self._ini = {one.ini: _as_pytest_gives_it(one, ini.get(one.name, one.default)) for one in options.OPTIONS}

    def getoption(self, flag: str) -> str | list[str] | None:
        return self._values[flag]

    def getini(self, name: str) -> str | list[str] | None:
        return self._ini[name]


def _as_pytest_gives_it(option: options.Option, text: str | None) -> str | list[str] | None:
    return text.splitlines() if option.is_listed and text is not None else text


def read(**command_line: str) -> Settings:
    named = {name.replace("_", "-"): value for name, value in command_line.items()}
    return read_settings(cast("pytest.Config", Given(named, {})))


# Where a value comes from: pytest's own parser and ini file


def test_defaults_measure_nothing(
    pytester: pytest.Pytester,
) -> None:
    settings = read_settings(pytester.parseconfig())
    assert not settings.measuring
    assert settings == replace(SETTINGS, baseline_dir=pytester.path / "baselines")


INI = {
    "rwkv_new": "",
    "rwkv_backend": "rwkv",
    "rwkv_model": "from ini.pth",
    "rwkv_quant": "fp32",
    "rwkv_workload": "pp16",
    "rwkv_batch": "1,8",
    "rwkv_device": "cuda:0",
    "rwkv_threads": "3",
    "rwkv_chunk": "64",
    "rwkv_set": "llama-cpp.ubatch=8,64",
    "rwkv_suite": "no",
    "rwkv_save_baseline": "replace",
    "rwkv_baseline_dir": "from-ini",
    "rwkv_tolerance": "7%",
    "rwkv_precision": "0.03",
    "rwkv_budget": "30",
    "rwkv_strict": "skip",
    "rwkv_ab": "",
    "rwkv_compare": "stored",
    "rwkv_witness": "graph",
    "rwkv_keep_wheels": "wheels",
    "rwkv_fewer_threads": "yes",
    "rwkv_false_alarms": "2%",
    "rwkv_wrong_pass": "0.1",
    "rwkv_aa": "no",
    "rwkv_report": "from-ini.json",
    "rwkv_report_language": "zh",
    "rwkv_protocol": "native,uniform",
    "rwkv_history": "from-ini.db",
}


def test_every_option_has_an_ini_twin(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\n" + "\n".join(f"{name} = {value}" for name, value in INI.items()))
    assert read_settings(pytester.parseconfig()) == Settings(
        backend="rwkv",
        model="from ini.pth",
        quants=("fp32",),
        quants_by_backend={},
        workloads=("pp16",),
        batches=(1, 8),
        devices=("cuda:0",),
        threads=(3,),
        chunk=64,
        settings_by_backend={"llama-cpp": {"ubatch": ("8", "64")}},
        suite="no",
        save="replace",
        save_crowded=False,
        baseline_dir=pytester.path / "from-ini",
        tolerance=0.07,
        precision=0.03,
        budget_seconds=30.0,
        strict=frozenset({"skip"}),
        false_alarms=0.02,
        wrong_pass=0.1,
        keep_wheels=pytester.path / "wheels",
        fewer_threads=True,
        ab=None,
        new=None,
        compare="stored",
        witnesses=("graph",),
        reports=(ReportRequest("json", pytester.path / "from-ini.json"),),
        report_language="zh",
        protocols=("native", "uniform"),
        history="from-ini.db",
    )
    assert set(INI) == {option.ini for option in options.OPTIONS}


COMMAND_LINE = {
    "--rwkv-backend": ("all", "backend", "all"),
    "--rwkv-model": ("other.gguf", "model", "other.gguf"),
    "--rwkv-quant": ("q8_0,rwkv=bf16+fp16", "quants", ("q8_0",)),
    "--rwkv-workload": ("tg8@d4", "workloads", ("tg8@d4",)),
    "--rwkv-batch": ("4,1", "batches", (4, 1)),
    "--rwkv-device": ("cpu", "devices", ("cpu",)),
    "--rwkv-threads": ("1,2", "threads", (1, 2)),
    "--rwkv-chunk": ("32", "chunk", 32),
    "--rwkv-set": ("rwkv.chunk=8", "settings_by_backend", {"rwkv": {"chunk": ("8",)}}),
    "--rwkv-false-alarms": ("3%", "false_alarms", 0.03),
    "--rwkv-wrong-pass": ("4%", "wrong_pass", 0.04),
    "--rwkv-suite": ("yes", "suite", "yes"),
    "--rwkv-save-baseline": ("no", "save", "no"),
    "--rwkv-tolerance": ("1%", "tolerance", 0.01),
    "--rwkv-precision": ("9%", "precision", 0.09),
    "--rwkv-budget": ("0.5", "budget_seconds", 0.5),
    "--rwkv-strict": ("no-baseline", "strict", frozenset({"no-baseline"})),
    "--rwkv-compare": ("auto", "compare", "auto"),
    "--rwkv-witness": ("none", "witnesses", ()),
    "--rwkv-fewer-threads": ("no", "fewer_threads", False),
    "--rwkv-new": ("", "new", None),
    "--rwkv-ab": (sys.executable, "ab", NamedBuild("interpreter", sys.executable)),
    "--rwkv-aa": ("no", "ab", NamedBuild("interpreter", sys.executable)),
    "--rwkv-report-language": ("en", "report_language", "en"),
    "--rwkv-protocol": ("uniform", "protocols", ("uniform",)),
    "--rwkv-history": ("other.db", "history", "other.db"),
}


def test_the_command_line_overrides_the_ini_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\n" + "\n".join(f"{name} = {value}" for name, value in INI.items()))
    flags = [f"{flag}={value}" for flag, (value, _, _) in COMMAND_LINE.items()]
    places = ("--rwkv-baseline-dir=elsewhere", "--rwkv-report=other.json", "--rwkv-keep-wheels=others")
    settings = read_settings(pytester.parseconfig(*flags, *places))
    for flag, (_, field, expected) in COMMAND_LINE.items():
        assert getattr(settings, field) == expected, flag
    assert settings.quants_by_backend == {"rwkv": ("bf16", "fp16")}
    assert settings.baseline_dir == pytester.path / "elsewhere"
    assert settings.keep_wheels == pytester.path / "others"
    assert settings.reports == (ReportRequest("json", pytester.path / "other.json"),)
    assert len(flags) + len(places) == len(options.OPTIONS)


def test_an_empty_option_overrides_the_ini_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nrwkv_backend = all\nrwkv_strict = skip\n")
    settings = read_settings(pytester.parseconfig("--rwkv-backend=", "--rwkv-strict="))
    assert not settings.measuring
    assert settings.strict == frozenset()


def test_an_empty_backend_is_refused_unless_it_overrides_one(pytester: pytest.Pytester) -> None:
    with pytest.raises(OptionError, match="--rwkv-backend is empty; name engines or write all"):
        read_settings(pytester.parseconfig("--rwkv-backend="))
    pytester.makeini("[pytest]\naddopts = --rwkv-backend=all\n")
    assert not read_settings(pytester.parseconfig("--rwkv-backend=")).measuring, "it overrules these"


def test_an_ini_files_model_path_is_relative_to_the_ini_file(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\nrwkv_model = models/x.gguf\n")
    below = pytester.mkdir("models")
    (below / "x.gguf").touch()
    assert read_settings(pytester.parseconfig()).model == "models/x.gguf"
    monkeypatch.chdir(below)
    assert read_settings(pytester.parseconfig()).model == str(below / "x.gguf")
    assert read_settings(pytester.parseconfig("--rwkv-model=x.gguf")).model == "x.gguf"


def test_an_ini_files_model_path_too_long_for_the_system_is_kept(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{'x' * 5000}.gguf"
    pytester.makeini(f"[pytest]\nrwkv_model = {name}\n")
    monkeypatch.chdir(pytester.mkdir("below"))
    assert read_settings(pytester.parseconfig()).model == name


def test_options_without_a_value(pytester: pytest.Pytester) -> None:
    settings = read_settings(pytester.parseconfig("--rwkv-save-baseline", "--rwkv-strict"))
    assert settings.save == "append"
    assert settings.strict == {"skip", "no-baseline", "inconclusive", "more-work"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("append", ("append", False)),
        ("append,crowded", ("append", True)),
        ("replace,crowded", ("replace", True)),
        ("no", ("no", False)),
    ],
)
def test_crowded_sessions_are_saved_only_where_the_value_says_so(text: str, expected: tuple[str, bool]) -> None:
    settings = read(save_baseline=text)
    assert (settings.save, settings.save_crowded) == expected


@pytest.mark.parametrize("text", ["crowded", "append,replace", "no,crowded", "append,crowd", ""])
def test_other_words_about_saving_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"is unknown; allowed: no, append, replace, append,crowded"):
        read(save_baseline=text)


def test_an_absolute_baseline_folder_is_kept(tmp_path: Path) -> None:
    assert read(baseline_dir=str(tmp_path)).baseline_dir == tmp_path


# Lists


@given(WORDS, st.sampled_from([",", " ", ", ", "\n", ",,"]))
def test_a_list_keeps_its_order_and_drops_duplicates(words: list[str], separator: str) -> None:
    settings = read(quant=separator.join(words + words))
    assert settings.quants == tuple(words)


@given(WORDS, st.dictionaries(st.sampled_from(["rwkv", "llama-cpp", "my-engine"]), WORDS.filter(bool)))
def test_a_list_of_quants_mixes_general_and_backend_quants(plain: list[str], named: dict[str, list[str]]) -> None:
    text = ",".join([*plain, *(f"{backend}={'+'.join(quants)}" for backend, quants in named.items())])
    settings = read(quant=text)
    assert settings.quants == tuple(plain)
    assert settings.quants_by_backend == {backend: tuple(quants) for backend, quants in named.items()}


def test_a_backend_named_twice_gets_all_its_quants_once() -> None:
    settings = read(quant="llama-cpp=f16+q8_0,llama-cpp=q8_0+q4_0")
    assert settings.quants_by_backend == {"llama-cpp": ("f16", "q8_0", "q4_0")}


@pytest.mark.parametrize("text", ["llama-cpp=", "=f16", "=", "llama-cpp=+", "f16,rwkv="])
def test_quants_without_a_backend_and_backends_without_quants_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="write for example llama-cpp=f16") as caught:
        read(quant=text)
    assert repr(text.rpartition(",")[2]) in str(caught.value)


# Shares


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5%", 0.05), ("2.5 %", 0.025), ("0.05", 0.05), (".05", 0.05), (" 99.9% ", 0.999), ("0.01%", 0.0001)],
)
def test_a_share_is_parsed(text: str, expected: float) -> None:
    assert read_share("--rwkv-tolerance=", text) == pytest.approx(expected)


@given(st.floats(1e-6, 0.999999))
def test_percent_and_fraction_mean_the_same(value: float) -> None:
    decimal = f"{value:.12f}"
    assert read_share("--rwkv-tolerance=", decimal) == float(decimal)
    percent = f"{value * 100:.10f} %"
    assert read_share("--rwkv-tolerance=", percent) == pytest.approx(value, rel=1e-5)


NO_SHARE = [
    *("", "%", "0", "0%", "0.0", "100%", "1", "5", "-5%", "+5%", "1e-3", "nan", "NaN%", "inf", "5%%", "5 percent"),
    *("5,0%", "1_0%", "\u0665%", "9" * 400, "9" * 400 + "%"),
]


@pytest.mark.parametrize("text", NO_SHARE)
@pytest.mark.parametrize("option", ["tolerance", "precision"])
def test_an_invalid_share_is_refused(option: str, text: str) -> None:
    with pytest.raises(OptionError, match=r"is not a share between 0 and 100 %; write 5% or 0\.05") as caught:
        read(**{option: text})
    assert f"--rwkv-{option}={text!r}" in str(caught.value)


@given(st.text())
def test_every_text_is_a_share_between_0_and_1_or_refused(text: str) -> None:
    with suppress(OptionError):  # and nothing else
        assert 0 < read_share("--rwkv-tolerance=", text) < 1


# Numbers and choices


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "-inf", "1e300", "10000000", "9" * 30, "9" * 5000, "four"])
@pytest.mark.parametrize("option", ["threads", "chunk", "budget"])
def test_invalid_numbers_are_refused(option: str, text: str) -> None:
    with pytest.raises(OptionError, match="is not a number above 0 and up to 9999999") as caught:
        read(**{option: text})
    assert f"--rwkv-{option}={text!r}" in str(caught.value)


@pytest.mark.parametrize("option", ["threads", "chunk"])
def test_threads_and_chunks_are_integers(option: str) -> None:
    with pytest.raises(OptionError, match=f"--rwkv-{option}='1.5'"):
        read(**{option: "1.5"})


@given(st.text() | st.floats().map(str))
def test_every_text_is_a_budget_or_refused(text: str) -> None:
    with suppress(OptionError):  # and nothing else
        assert 0 < read(budget=text).budget_seconds < math.inf


def test_no_witness_stands_alone() -> None:
    """And `auto` may stand beside others."""
    assert read(witness="graph,auto").witnesses == ("graph", "operations", "kernels")
    with pytest.raises(OptionError, match="names none and others"):
        read(witness="none,graph")


@pytest.mark.parametrize(
    ("option", "text", "allowed"),
    [
        ("suite", "maybe", "auto, yes, no, invariants"),
        ("suite", "", "auto, yes, no, invariants"),
        ("save_baseline", "maybe", "no, append, replace, append,crowded, replace,crowded"),
        ("strict", "skip,never", "skip, no-baseline, inconclusive, more-work"),
        ("witness", "graph,eyes", "auto, none, operations, graph, kernels, instructions"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_allowed_ones(option: str, text: str, allowed: str) -> None:
    flag = f"--rwkv-{option.replace('_', '-')}"
    with pytest.raises(OptionError) as caught:
        read(**{option: text})
    assert str(caught.value) == f"{flag}={text.rpartition(',')[2]!r} is unknown; allowed: {allowed}"


# Reports


def test_several_reports_are_relative_to_the_callers_folder(pytester: pytest.Pytester) -> None:
    folder = pytester.mkdir("below")
    pytester.makeini("[pytest]")
    pytester.chdir()
    config = pytester.parseconfig("--rwkv-report=a.json", f"--rwkv-report=json:{folder}/b.txt")
    assert read_settings(config).reports == (
        ReportRequest("json", pytester.path / "a.json"),
        ReportRequest("json", folder / "b.txt"),
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("run.json", ReportRequest("json", ROOT / "called from" / "run.json")),
        ("RUN.JSON", ReportRequest("json", ROOT / "called from" / "RUN.JSON")),
        ("json:run", ReportRequest("json", ROOT / "called from" / "run")),
        ("json:a:b.md", ReportRequest("json", ROOT / "called from" / "a:b.md")),
        ("./a:b.json", ReportRequest("json", ROOT / "called from" / "a:b.json")),
        ("/abs/run.json", ReportRequest("json", Path("/abs/run.json"))),
        ("C:run.json", ReportRequest("json", ROOT / "called from" / "C:run.json")),
    ],
)
def test_a_report_is_a_file_or_a_format_and_a_file(text: str, wanted: ReportRequest) -> None:
    assert read(report=text).reports == (wanted,)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("run", "no such format; write a file ending in .json"),
        ("run.docx", "or FORMAT:FILE with one of json"),
        ("jsno:run.json", "no such format"),
        ("json:", "names no file"),
        ("json:out/", "names no file"),
    ],
)
def test_an_unknown_report_format_is_refused(text: str, hint: str) -> None:
    with pytest.raises(OptionError, match="--rwkv-report") as caught:
        read(report=text)
    assert hint in str(caught.value)


def test_settings_of_engines_may_be_repeated_in_every_form(pytester: pytest.Pytester) -> None:
    given = ["--rwkv-set=llama-cpp.ubatch=8,64", "--rwkv-set", "web-rwkv.chunk=32", "--rwkv-set=llama-cpp.mmap=off"]
    expected = {"llama-cpp": {"ubatch": ("8", "64"), "mmap": ("off",)}, "web-rwkv": {"chunk": ("32",)}}
    assert read_settings(pytester.parseconfig(*given)).settings_by_backend == expected
    pytester.makeini("[pytest]\nrwkv_set =\n  llama-cpp.ubatch=8,64\n  web-rwkv.chunk=32\n  llama-cpp.mmap=off\n")
    assert read_settings(pytester.parseconfig()).settings_by_backend == expected


def test_a_setting_named_twice_has_all_values_once() -> None:
    assert read_sets(["a.b=1, 2", "", " a.b = 2,3 ", "x.y.z=p q"]) == {
        "a": {"b": ("1", "2", "3")},
        "x.y": {"z": ("p q",)},
    }


@pytest.mark.parametrize("text", ["llama-cpp", "ubatch=8", ".ubatch=8", "llama-cpp.=8", "llama-cpp.ubatch", "a.b=,"])
def test_a_setting_without_backend_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"is not understood; write for example llama-cpp.ubatch=128,512"):
        read_sets([text])


def test_two_lines_of_an_ini_file_are_two_reports(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nrwkv_report =\n    a.json\n    json:b\n")
    wanted = read_settings(pytester.parseconfig()).reports
    assert wanted == (ReportRequest("json", pytester.path / "a.json"), ReportRequest("json", pytester.path / "b"))


# One reading of lists, numbers, switches and paths, wherever they stand

TOML = """
rwkv_backend = {backend}
rwkv_quant = ["f16", "q8_0"]
rwkv_workload = ["pp32", "tg8"]
rwkv_threads = {threads}
rwkv_chunk = 32
rwkv_budget = 0.5
rwkv_tolerance = 0.07
rwkv_aa = true
rwkv_strict = ["skip"]
rwkv_report = ["a.json", "html:~/b"]
rwkv_baseline_dir = "~/perf"
"""


@pytest.mark.parametrize(
    ("table", "backend", "threads"),
    [
        ("tool.pytest.ini_options", '["llama-cpp", "rwkv"]', "[1, 2]"),
        ("tool.pytest.ini_options", '"llama-cpp,rwkv"', '"1,2"'),
        ("tool.pytest", '"llama-cpp,rwkv"', '["1", "2"]'),
        ("tool.pytest", '["llama-cpp", "rwkv"]', "[1, 2]"),
        ("tool.pytest", '"llama-cpp,rwkv"', '"1,2"'),
    ],
)
def test_toml_may_hold_lists_numbers_and_truth_values(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, table: str, backend: str, threads: str
) -> None:
    monkeypatch.setenv("HOME", str(pytester.path / "home"))
    pytester.makepyprojecttoml(f"[{table}]" + TOML.format(backend=backend, threads=threads))
    settings = read_settings(pytester.parseconfig())
    assert settings == replace(
        SETTINGS,
        backend="llama-cpp,rwkv",
        quants=("f16", "q8_0"),
        workloads=("pp32", "tg8"),
        threads=(1, 2),
        chunk=32,
        budget_seconds=0.5,
        tolerance=0.07,
        ab=NamedBuild("interpreter", sys.executable),
        new=None,
        strict=frozenset({"skip"}),
        reports=(
            ReportRequest("json", pytester.path / "a.json"),
            ReportRequest("html", pytester.path / "home" / "b"),
        ),
        baseline_dir=pytester.path / "home" / "perf",
    )


@pytest.mark.parametrize("line", ['= "f16,q8_0"', '= """\nf16\nq8_0\n"""', '= ["f16", "q8_0"]', "= 'f16 q8_0'"])
@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("pyproject.toml", "[tool.pytest]\n"),
        ("pyproject.toml", "[tool.pytest.ini_options]\n"),
        ("pytest.toml", "[pytest]\n"),
        ("own.toml", "[pytest]\n"),
        ("own.toml", "[tool.pytest]\n"),
    ],
)
def test_a_text_and_a_list_are_read_alike_in_every_table(
    pytester: pytest.Pytester, name: str, head: str, line: str
) -> None:
    (pytester.path / name).write_text(f"{head}rwkv_quant {line}\nrwkv_strict = true\nrwkv_report = 'a.json'\n")
    settings = read_settings(pytester.parseconfig(*(["-c", name] if name == "own.toml" else [])))
    assert settings.quants == ("f16", "q8_0")
    assert settings.strict == frozenset(options.STRICTNESS)
    assert [report.path.name for report in settings.reports] == ["a.json"]


@pytest.mark.parametrize("table", ["tool.pytest", "tool.pytest.ini_options"])
@pytest.mark.parametrize(
    ("value", "found"), [('["a.pth", "b.pth"]', r"the list \[a\.pth, b\.pth\]"), ("[]", r"the list \[\]")]
)
def test_a_list_where_one_value_is_meant_is_refused(
    pytester: pytest.Pytester, table: str, value: str, found: str
) -> None:
    pytester.makepyprojecttoml(f"[{table}]\nrwkv_model = {value}")
    with pytest.raises(OptionError, match=f"rwkv_model takes one value, not {found}"):
        read_settings(pytester.parseconfig())


def test_a_table_is_refused_with_the_form(pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml("[tool.pytest]\nrwkv_quant = {f16 = 1}")
    with pytest.raises(OptionError, match=r"rwkv_quant takes a list, or one text with commas .*, not a table with f16"):
        read_settings(pytester.parseconfig())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("baseline_dir", lambda settings: settings.baseline_dir),
        ("keep_wheels", lambda settings: settings.keep_wheels),
        ("report", lambda settings: settings.reports[0].path),
    ],
)
def test_a_tilde_is_the_home_on_the_command_line_and_in_the_ini_file(
    option: str, value: Callable[[Settings], Path], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(pytester.path / "home"))
    expected = pytester.path / "home" / "x.json"
    assert value(read(**{option: "~/x.json"})) == expected
    pytester.makeini(f"[pytest]\nrwkv_{option} = ~/x.json")
    assert value(read_settings(pytester.parseconfig())) == expected
    with pytest.raises(OptionError, match=rf"--rwkv-{option.replace('_', '-')}='~nobody-at-all/x.json' is no usable"):
        read(**{option: "~nobody-at-all/x.json"})


@pytest.mark.parametrize(("value", "save"), [("true", "append"), ("false", "no"), ('"replace"', "replace")])
@pytest.mark.parametrize("table", ["tool.pytest", "tool.pytest.ini_options"])
def test_a_truth_value_means_the_option_without_a_value(
    pytester: pytest.Pytester, table: str, value: str, save: str
) -> None:
    strict = {"append": frozenset(options.STRICTNESS), "no": frozenset[str](), "replace": {"skip"}}[save]
    text = "['skip']" if save == "replace" else value
    pytester.makepyprojecttoml(f"[{table}]\nrwkv_save_baseline = {value}\nrwkv_strict = {text}")
    settings = read_settings(pytester.parseconfig())
    assert (settings.save, settings.strict) == (save, strict)


@pytest.mark.parametrize("text", ["yes", "true", "True", "on", "1"])
def test_a_switch_has_several_spellings(text: str) -> None:
    assert read(aa=text).ab == NamedBuild("interpreter", sys.executable)
    assert read(suite=text).suite == "yes"
    assert read(save_baseline=text).save == "append"
    assert read(aa={"yes": "no", "1": "0", "on": "off"}.get(text, "FALSE")).ab is None
