"""The options, their ini twins, and the settings they become."""

from __future__ import annotations

import os
import re
import sys
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

from pytest_rwkvperf.backends.registry import BY_HAND_ONLY, EXECUTABLES, IN_ALL
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.paths import user_path
from pytest_rwkvperf.reports import formats
from pytest_rwkvperf.witnesses.registry import CHEAP, WITNESSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from pytest_rwkvperf.core.cases import ProtocolName
    from pytest_rwkvperf.environments.references import Reference
    from pytest_rwkvperf.reports.formats import ReportRequest
    from pytest_rwkvperf.reports.report import Language

Suite = Literal["auto", "yes", "no", "invariants"]
Save = Literal["no", "append", "replace"]
Compare = Literal["auto", "stored", "ab"]
Strictness = Literal["skip", "no-baseline", "inconclusive", "more-work"]

_SAVES = ("no", "append", "replace", "append,crowded", "replace,crowded")

MAX_NUMBER = 9_999_999
"""Of threads, tokens in a chunk and seconds. A workload's tokens have the same bound."""

EVERY = "all"
"""The value of --rwkv-device for every device that the engines list."""

STRICTNESS: tuple[Strictness, ...] = ("skip", "no-baseline", "inconclusive", "more-work")

_WITNESSES = ("auto", "none", *WITNESSES)


Kind = Literal["text", "list", "count", "seconds", "share", "choice", "path"]

_SCALAR: Any = str | int | float | bool
"""The type of an ini option of one value, for a pytest that knows unions (9.2)."""

_SWITCHES = {"true": "yes", "on": "yes", "1": "yes", "false": "no", "off": "no", "0": "no"}
"""Other spellings of the words of a switch."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option: `--rwkv-NAME` on the command line, `rwkv_NAME` in the ini file."""

    name: str
    default: str
    help: str
    metavar: str
    bare: str | None = None
    """The value when the option is given without one."""
    repeatable: bool = False
    """Whether it may be given several times, or on several lines of the ini file."""
    kind: Kind = "text"
    """How its text is read, wherever it comes from (`_typed`)."""
    allowed: tuple[str, ...] = ()
    """The words of a choice, or of a list of some."""

    @property
    def flag(self) -> str:
        """The command-line form."""
        return f"--rwkv-{self.name}"

    @property
    def is_listed(self) -> bool:
        """Whether it may have several values: a list in TOML, lines in an ini file."""
        return self.repeatable or self.kind == "list"

    @property
    def ini(self) -> str:
        """The ini form."""
        return f"rwkv_{self.name.replace('-', '_')}"


OPTIONS = (
    Option(
        "backend",
        "",
        "turn measuring on; on the command line it also deselects every other test. all: every backend, a missing one "
        "is a skip that says how to install it; a backend named here and missing is an error. "
        f"Known: {', '.join(IN_ALL)}, and what installed distributions add; by name alone, not in all: "
        f"{', '.join(sorted(BY_HAND_ONLY))}; {', '.join(f'{name}:/path' for name in EXECUTABLES)} run these "
        "programs themselves",
        "all|NAME,...",
    ),
    Option(
        "model",
        "synthetic:nano",
        "a .pth, .st or .gguf file; synthetic:SHAPE[:SEED] with SHAPE nano, 0.1b, 0.4b, 1.5b, 2.9b, 7.2b or 13.3b; "
        "hf:OWNER/REPO/FILE, ms:OWNER/REPO/FILE; or a public model's short name such as rwkv7-g1-2.9b",
        "REF",
    ),
    Option(
        "quant",
        "",
        "precisions in each backend's own words, for the backends that know them (fp32,q8_0,int8@31), or for one "
        "backend: llama-cpp=f16+q8_0. Default: each backend's standard ones",
        "LIST",
        kind="list",
    ),
    Option(
        "workload",
        "",
        "ppN prefill, tgN generation, @dN after N tokens of context, @bN of N sequences at once (tg128@b8). Default: "
        "pp512,tg128, and pp32,tg8 on a software adapter (llvmpipe)",
        "LIST",
        kind="list",
    ),
    Option(
        "batch",
        "",
        "numbers of sequences at once, for every workload that names none itself: --rwkv-batch=1,8,32 measures tg128 "
        "as tg128, tg128@b8 and tg128@b32. Default: 1",
        "LIST",
        kind="list",
    ),
    Option(
        "device",
        "",
        "device ids as the engines list them (cpu, cuda:0, vulkan:0), or all. Default: each one's best",
        "LIST",
        kind="list",
    ),
    Option(
        "threads", "", "CPU threads of an engine. Default: the physical cores this process may use", "LIST", kind="list"
    ),
    Option(
        "chunk",
        "",
        "most tokens in one prefill call. Default: 512, and 128 for web-rwkv as its own tool",
        "N",
        kind="count",
    ),
    Option(
        "set",
        "",
        "settings of an engine's own that change its speed: each value is a case of its own, and of several settings "
        "each combination (llama-cpp.ubatch=128,512); may be repeated. chunk is every engine's, in the place of "
        "--rwkv-chunk (web-rwkv.chunk=64,128). An unknown name is answered with those that the engine has",
        "BACKEND.NAME=LIST",
        repeatable=True,
    ),
    Option(
        "protocol",
        "uniform",
        "uniform times all engines alike; native times each as its own tool does (web-rwkv bench, llama-bench, the "
        "guide's three-turn chat for rwkv), for figures that go beside older posts. Both: uniform,native",
        "LIST",
        kind="list",
        allowed=("uniform", "native"),
    ),
    Option(
        "suite",
        "auto",
        "the shipped tests; auto: when no test of your own asks for rwkv_perf. invariants: in their place those that "
        "need no stored figure, as a context costs RWKV neither time nor memory",
        "auto|yes|no|invariants",
        kind="choice",
        allowed=("auto", "yes", "no", "invariants"),
    ),
    Option(
        "save-baseline",
        "no",
        "store this run as this machine's baseline, beside older sessions; a regression is stored with replace only, "
        "and what was measured beside other busy processes only with ,crowded (append,crowded)",
        "append|replace[,crowded]",
        bare="append",
    ),
    Option(
        "ab",
        "",
        "compare with another build of the engine instead of with stored figures: both are measured in alternation, "
        "which is what a shared machine needs. The old build is another interpreter's (PYTHON); what the stored "
        "baseline was measured with (baseline); a requirement that is installed into an environment of its own "
        "(llama-cpp-python==0.3.35, 'rwkv @ git+https://HOST/REPO@COMMIT', a wheel, a source folder); an engine's "
        "source that is compiled (llama.cpp@REVISION, REPOSITORY@REVISION, a folder as it is); llama.cpp's "
        "libraries in a folder (lib:FOLDER); or a program (llama-bench:/path) where --rwkv-backend names one",
        "PYTHON|baseline|REQUIREMENT|SOURCE|lib:FOLDER",
    ),
    Option(
        "new",
        "",
        "with --rwkv-ab: the build to compare with the old one, in the same words. Default: this environment",
        "PYTHON|REQUIREMENT|SOURCE|lib:FOLDER",
    ),
    Option(
        "compare",
        "auto",
        "what decides. auto: software that is the same as the baseline's passes; else stored figures, and where they "
        "leave something open, A/B against the baseline's software, rebuilt from baselines/reference.json. stored: "
        "stored figures alone. ab: A/B alone, as --rwkv-ab=baseline. --rwkv-ab and --rwkv-aa go before it",
        "auto|stored|ab",
        kind="choice",
        allowed=("auto", "stored", "ab"),
    ),
    Option(
        "aa",
        "no",
        "as --rwkv-ab with this same interpreter on both sides: shows what this machine's noise hides and whether "
        "unchanged code is ever called slower",
        "yes|no",
        bare="yes",
        kind="choice",
        allowed=("yes", "no"),
    ),
    Option(
        "fewer-threads",
        "no",
        "A/B may measure both sides with fewer threads while other processes use the processors; the verdict says how "
        "many",
        "yes|no",
        bare="yes",
        kind="choice",
        allowed=("yes", "no"),
    ),
    Option("baseline-dir", "baselines", "folder of the baselines, relative to the rootdir", "DIR", kind="path"),
    Option(
        "keep-wheels",
        "",
        "a folder for wheels of what is installed from no index: --rwkv-save-baseline puts them there, and "
        "--rwkv-ab=baseline finds them by their hash",
        "DIR",
        kind="path",
    ),
    Option(
        "false-alarms",
        "1%",
        "how often a run of unchanged code may have a REGRESSION anywhere",
        "PERCENT",
        kind="share",
    ),
    Option(
        "wrong-pass", "5%", "how often a workload that is slower than the tolerance may PASS", "PERCENT", kind="share"
    ),
    Option("tolerance", "5%", "slowdown that counts, as a share of the time", "PERCENT", kind="share"),
    Option("precision", "2%", "stop a case when its interval's half-width is under this", "PERCENT", kind="share"),
    Option(
        "budget",
        "240",
        "seconds for the whole run, shared over the cases; at least 3 processes x 3 samples are taken whatever it says",
        "SECONDS",
        kind="seconds",
    ),
    Option(
        "strict",
        "",
        "these fail too: skip, no-baseline, inconclusive, and more-work, which an exact witness found. All without a "
        "value",
        "LIST",
        bare=",".join(STRICTNESS),
        kind="list",
        allowed=STRICTNESS,
    ),
    Option(
        "witness",
        "auto",
        "what counts each engine's work, beside the clock and after it: operations (rwkv), graph (llama.cpp's nodes), "
        "kernels (on CUDA, by CUPTI), instructions (llama.cpp on a CPU, by valgrind: minutes, and an engine with "
        "AVX-512 is compiled anew without). "
        "auto: those that are exact and take seconds; none: no counting",
        "auto|none|LIST",
        kind="list",
        allowed=_WITNESSES,
    ),
    Option(
        "report",
        "",
        f"write a report; may be repeated. The format follows from the file's suffix ({', '.join(formats.SUFFIXES)}) "
        f"or stands before it: FORMAT:FILE with one of {', '.join(formats.FORMATS)}",
        "FILE",
        repeatable=True,
    ),
    Option(
        "history",
        "",
        "store this run's record in a database: an SQLite file, sqlite:///FILE or postgresql://USER@HOST/DATABASE. "
        "What cannot be stored now is kept on this disk and sent with the next run",
        "FILE|URL",
    ),
    Option(
        "report-language",
        "en",
        "of reports for people: English or Chinese",
        "en|zh",
        kind="choice",
        allowed=("en", "zh"),
    ),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The options as values; lists are empty where the default depends on the backend."""

    backend: str
    model: str
    quants: tuple[str, ...]
    quants_by_backend: dict[str, tuple[str, ...]]
    workloads: tuple[str, ...]
    batches: tuple[int, ...]
    devices: tuple[str, ...]
    threads: tuple[int, ...]
    chunk: int | None
    settings_by_backend: dict[str, dict[str, tuple[str, ...]]]
    """Values of engines' own settings: backend to name to values."""
    suite: Suite
    save: Save
    save_crowded: bool
    """Whether to store also what was measured while other processes took much of the processor."""
    baseline_dir: Path
    tolerance: float
    precision: float
    budget_seconds: float
    strict: frozenset[Strictness]
    false_alarms: float
    wrong_pass: float
    ab: Reference | None
    """The old build of an A/B run, this interpreter in A/A; None when stored figures are compared with first."""
    new: Reference | None
    """What an A/B run has instead of this environment on the new side; None for this environment."""
    compare: Compare
    witnesses: tuple[str, ...]
    """The chosen witnesses' names; those that do not suit an engine are left out there."""
    keep_wheels: Path | None
    fewer_threads: bool
    """Whether A/B may use fewer threads than a case has, where others use the processors."""
    reports: tuple[ReportRequest, ...]
    report_language: Language
    protocols: tuple[ProtocolName, ...]
    history: str = field(repr=False)
    """The history's address with its password, if it has one; empty when no history is kept."""

    exclusive: bool = False
    """Whether only tests that measure are run: measuring was turned on for this run, and not by the ini file."""

    @property
    def aa(self) -> bool:
        """Whether this interpreter is measured against itself."""
        return self.ab is not None and self.new is None and self.ab.is_interpreter(sys.executable)

    @property
    def settles(self) -> bool:
        """Whether A/B against the baseline's software may decide what stored figures leave open."""
        return self.compare == "auto" and self.ab is None and self.save == "no"

    @property
    def spreads(self) -> bool:
        """Whether several devices may be asked for, which pytest-xdist's workers can measure at the same time."""
        return len(self.devices) > 1 or EVERY in self.devices

    @property
    def measuring(self) -> bool:
        """Whether `--rwkv-backend` was given."""
        return bool(self.backend)


def declare(parser: pytest.Parser) -> None:
    """Add every option and its ini twin to pytest."""
    group = parser.getgroup("rwkvperf", "RWKV-7 performance (pytest-rwkvperf)")
    for option in OPTIONS:
        default = f" (default: {option.default})" if option.default and option.bare is None else ""
        extra: dict[str, Any] = {} if option.bare is None else {"nargs": "?", "const": option.bare}
        if option.repeatable:
            extra["action"] = "append"
        group.addoption(
            option.flag, metavar=option.metavar, help=(option.help + default).replace("%", "%%"), default=None, **extra
        )
        _declare_ini(parser, option)


def _declare_ini(parser: pytest.Parser, option: Option) -> None:
    help_text = f"twin of {option.flag}"
    if option.is_listed:
        default = option.default.split(",") if option.default else []
        parser.addini(option.ini, help_text, type="linelist", default=default)
        return
    try:
        parser.addini(option.ini, help_text, type=_SCALAR, default=option.default)
    except (AssertionError, TypeError, ValueError):  # an earlier pytest
        parser.addini(option.ini, help_text, type="string", default=option.default)


def read(config: pytest.Config) -> Settings:
    """The settings of a run; the command line overrides the ini file.

    Raises:
        OptionError: a value is not understood; the message names the option and what is allowed.
    """
    raw = values(config)
    typed = {option.name: _typed(config, option, raw[option.name]) for option in OPTIONS}
    quants, quants_by_backend = _quants(typed["quant"])
    save, save_crowded = read_save("--rwkv-save-baseline=", raw["save-baseline"])
    return Settings(
        backend=_backend(config, raw["backend"]),
        model=_model(config, raw["model"]),
        quants=quants,
        quants_by_backend=quants_by_backend,
        workloads=typed["workload"],
        batches=tuple(_number("batch", word, int) for word in typed["batch"]),
        devices=typed["device"],
        threads=tuple(_number("threads", word, int) for word in typed["threads"]),
        chunk=typed["chunk"],
        settings_by_backend=read_sets(raw["set"].splitlines()),
        suite=_suite(raw, typed),
        save=save,
        save_crowded=save_crowded,
        baseline_dir=typed["baseline-dir"] or config.rootpath,
        tolerance=typed["tolerance"],
        precision=typed["precision"],
        budget_seconds=typed["budget"],
        false_alarms=typed["false-alarms"],
        wrong_pass=typed["wrong-pass"],
        ab=_old_build(raw, same=typed["aa"] == "yes"),
        new=_new_build(raw),
        compare=typed["compare"],
        witnesses=_witnesses(typed["witness"]),
        keep_wheels=typed["keep-wheels"],
        fewer_threads=typed["fewer-threads"] == "yes",
        strict=frozenset(typed["strict"]),
        reports=_reports(config),
        history=raw["history"],
        report_language=typed["report-language"],
        protocols=_protocols(raw, typed),
        exclusive=config.getoption("--rwkv-backend") is not None,
    )


def _typed(config: pytest.Config, option: Option, text: str) -> Any:  # noqa: ANN401 - by the option's kind
    """An option's value, by its kind. A count or a path that is not given is None.

    Raises:
        OptionError: the text is none of the kind.
    """
    words = _words(text)
    readers: dict[Kind, Callable[[], Any]] = {
        "text": lambda: text,
        "list": lambda: tuple(_choice(option.name, word, option.allowed or (word,)) for word in words),
        "choice": lambda: _choice(option.name, text, option.allowed),
        "share": lambda: read_share(f"{option.flag}=", text),
        "count": lambda: _number(option.name, text, int) if text else None,
        "seconds": lambda: _number(option.name, text, float),
        "path": lambda: user_path(text, config.rootpath, f"{option.flag}=") if text else None,
    }
    return readers[option.kind]()


def _witnesses(words: tuple[str, ...]) -> tuple[str, ...]:
    """The witnesses that are named; of `auto` the cheap ones.

    Raises:
        OptionError: `none` stands beside others.
    """
    if "none" in words and set(words) != {"none"}:
        raise OptionError(f"--rwkv-witness={','.join(words)} names none and others; write none alone, or the names")
    named = [name for word in words for name in (CHEAP if word == "auto" else (word,))]
    return tuple(dict.fromkeys(name for name in named if name != "none"))


def _backend(config: pytest.Config, text: str) -> str:
    """The text as it is. An empty one turns settings off; with none, an unset variable would look like success."""
    if text or config.getoption("--rwkv-backend") is None or config.getini("rwkv_backend"):
        return text
    if not any("--rwkv-backend" in text for text in (*config.getini("addopts"), os.environ.get("PYTEST_ADDOPTS", ""))):
        raise OptionError("--rwkv-backend is empty; name engines or write all, or leave it out to measure nothing")
    return text


def _model(config: pytest.Config, text: str) -> str:
    """The text as it is; a file that the ini file names is relative to pytest's rootdir."""
    in_rootdir = config.rootpath / text
    from_ini = config.getoption("--rwkv-model") is None
    elsewhere = config.invocation_params.dir != config.rootpath
    try:
        return str(in_rootdir) if from_ini and elsewhere and in_rootdir.is_file() else text
    except OSError:  # no permission to look: an error when the model is read
        return text


def _protocols(raw: Mapping[str, str], typed: Mapping[str, Any]) -> tuple[ProtocolName, ...]:
    chosen: tuple[ProtocolName, ...] = typed["protocol"] or ("uniform",)
    if "native" in chosen and (raw["ab"] or typed["aa"] == "yes" or typed["compare"] == "ab"):
        raise OptionError(
            "--rwkv-protocol=native times whole invocations of a tool, which cannot alternate; leave --rwkv-ab out"
        )
    return chosen


def _suite(raw: Mapping[str, str], typed: Mapping[str, Any]) -> Suite:
    suite: Suite = typed["suite"]
    if suite == "invariants":
        others = {
            "--rwkv-ab": raw["ab"],
            "--rwkv-aa": typed["aa"] == "yes",
            "--rwkv-compare=ab": raw["compare"] == "ab",
        }
        if given := [flag for flag, is_given in others.items() if is_given]:
            raise OptionError(
                f"--rwkv-suite=invariants compares workloads of one engine, and {given[0]} two builds; leave one out"
            )
        if raw["save-baseline"] != "no":
            raise OptionError("--rwkv-suite=invariants needs no baseline; save one by a run of its own")
    return suite


def values(config: pytest.Config) -> dict[str, str]:
    """Every option's text by name, the command line before the ini file; several values are lines."""
    return {option.name: _value(config, option) for option in OPTIONS}


def _old_build(raw: Mapping[str, str], *, same: bool) -> Reference | None:
    """The old build that `--rwkv-ab`, `--rwkv-aa` and `--rwkv-compare` ask for; this interpreter for A/A."""
    ab, compare = raw["ab"], raw["compare"]
    if same and ab:
        raise OptionError(f"--rwkv-aa compares this interpreter with itself, --rwkv-ab={ab} with another; choose one")
    text = sys.executable if same else ab or ("baseline" if compare == "ab" else "")
    if not text:
        return None
    if raw["save-baseline"] != "no":
        raise OptionError("--rwkv-ab and --rwkv-aa compare two builds; run --rwkv-save-baseline by itself")
    from pytest_rwkvperf.environments import references

    return references.parse(text)


def _new_build(raw: Mapping[str, str]) -> Reference | None:
    """What `--rwkv-new` names."""
    if not raw["new"]:
        return None
    if not raw["ab"]:
        raise OptionError(f"--rwkv-new={raw['new']} is compared with an old build; name it with --rwkv-ab")
    if raw["new"] == "baseline":
        raise OptionError("--rwkv-new=baseline: the baseline's software is the old side; write --rwkv-ab=baseline")
    from pytest_rwkvperf.environments import references

    return references.parse(raw["new"])


def read_save(option: str, text: str) -> tuple[Save, bool]:
    """How to save, and whether crowded sessions too: `append`, `replace,crowded`; errors begin with `option`.

    `crowded` is a word of this value, not an option of its own: it is asked for with each save, and an ini file cannot
    turn it on unnoticed.

    Raises:
        OptionError: it is none of these.
    """
    mode, _, crowded = text.partition(",")
    if text not in _SAVES:
        raise OptionError(f"{option}{text!r} is unknown; allowed: {', '.join(_SAVES)}{_path_hint(text)}")
    return cast("Save", mode), bool(crowded)


def read_share(option: str, text: str) -> float:
    """Read `5%`, `2.5 %` or `0.05` as a share strictly between 0 and 1; errors begin with `option`.

    Raises:
        OptionError: it is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(%?)\s*", text, re.ASCII)
    value = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < value < 1:
        raise OptionError(f"{option}{text!r} is not a share between 0 and 100 %; write 5% or 0.05")
    return value


def _value(config: pytest.Config, option: Option) -> str:
    """An option's text from the command line or, where it does not stand there, from the ini file.

    Raises:
        OptionError: the file's value is of no type that the option takes.
    """
    if (given := config.getoption(option.flag)) is not None:
        return _text(option, given)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pytest's own, of a list where one value is meant: `_text` refuses it
            value = config.getini(option.ini)
    except (pytest.UsageError, TypeError, ValueError) as error:
        value = _in_toml(config, option.ini)
        if value is None:
            raise OptionError(f"{error}; {option.ini} takes {_form(option)}") from error
    return _text(option, value)


def _in_toml(config: pytest.Config, name: str) -> object:
    """A setting as a TOML file has it; None where it has none.

    For native TOML pytest holds a value to the declared type: where a list is declared it refuses a string, and in one
    numbers. Here all forms are read alike, wherever they stand.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pytest requires it there

    path = config.inipath
    if path is None or path.suffix != ".toml":
        return None
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    tables = (content.get("tool", {}).get("pytest", {}), content.get("pytest", {}))  # never both
    return next((table[name] for table in tables if name in table), None)


def _form(option: Option) -> str:
    """What may stand in a file for an option, for its errors."""
    if option.is_listed or option.name == "backend":
        return "a list, or one text with commas or line breaks between the values"
    return "one value"


def _text(option: Option, value: object) -> str:
    """An option's value as on the command line: a file may hold lists, numbers and truth values.

    Raises:
        OptionError: it is a list, and the option takes one value; or a table.
    """
    if not isinstance(value, (list, tuple, dict)):
        return _switched(option, str(value).strip())
    lines = [str(each).strip() for each in value]
    several = option.is_listed or option.name == "backend"
    if isinstance(value, dict) or (len(lines) != 1 and not several):
        found = f"a table with {', '.join(lines)}" if isinstance(value, dict) else f"the list [{', '.join(lines)}]"
        raise OptionError(f"{option.ini} takes {_form(option)}, not {found}")
    return _switched(option, ("\n" if option.repeatable else ",").join(lines))


def _switched(option: Option, text: str) -> str:
    """The text, or of an option that may stand without a value what a truth value in its place means."""
    word = _SWITCHES.get(text.lower(), text.lower())
    if option.bare is None or word not in ("yes", "no"):
        return text
    return option.bare if word == "yes" else "" if option.kind == "list" else "no"


def _reports(config: pytest.Config) -> tuple[ReportRequest, ...]:
    """A relative path on the command line is relative to the current folder, in the ini file to the rootdir."""
    option = next(option for option in OPTIONS if option.name == "report")
    given = config.getoption(option.flag)
    folder = config.rootpath if given is None else config.invocation_params.dir
    return tuple(formats.parse(text, folder) for text in _value(config, option).splitlines() if text.strip())


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in re.split(r"[,\s]+", text) if word))


def _quants(words: Iterable[str]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Read `f16,q8_0`, for every backend that knows them, and `llama-cpp=f16+q8_0`, for one backend."""
    plain: list[str] = []
    by_backend: dict[str, tuple[str, ...]] = {}
    for word in words:
        backend, separator, quants = word.partition("=")
        if separator:
            named = [quant for quant in quants.split("+") if quant]
            if not backend or not named:
                raise OptionError(f"--rwkv-quant={word!r} is not understood; write for example llama-cpp=f16+q8_0")
            by_backend[backend] = tuple(dict.fromkeys((*by_backend.get(backend, ()), *named)))
        else:
            plain.append(word)
    return tuple(plain), by_backend


def read_sets(lines: Iterable[str]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Read `llama-cpp.ubatch=128,512`, one a line: backend to name to values. One that is named twice has all of them.

    Raises:
        OptionError: a line has another form.
    """
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for line in filter(None, map(str.strip, lines)):
        place, _, values = line.partition("=")
        backend, _, name = place.strip().rpartition(".")
        given = [value for each in values.split(",") if (value := each.strip())]
        if not backend or not name or not given:
            raise OptionError(f"--rwkv-set={line!r} is not understood; write for example llama-cpp.ubatch=128,512")
        of_backend = found.setdefault(backend, {})
        of_backend[name] = tuple(dict.fromkeys((*of_backend.get(name, ()), *given)))
    return found


def _choice(name: str, text: str, allowed: tuple[Any, ...]) -> Any:  # noqa: ANN401 - one of the literals given
    if "yes" in allowed:
        text = _SWITCHES.get(text.lower(), text)
    if text not in allowed:
        from pytest_rwkvperf.core.text import did_you_mean

        known = f"{did_you_mean(text, allowed)}; allowed: {', '.join(allowed)}"
        raise OptionError(f"--rwkv-{name}={text!r} is unknown{known}{_path_hint(text)}")
    return text


def _path_hint(text: str) -> str:
    """Without a value, --rwkv-save-baseline and --rwkv-strict take the next argument for it."""
    return "; put test paths before the option" if "/" in text or text.endswith(".py") else ""


def _number(name: str, text: str, kind: Callable[[str], Any]) -> Any:  # noqa: ANN401 - int or float, as asked
    try:
        return positive(text, kind)
    except ValueError as error:
        raise OptionError(f"--rwkv-{name}={error}; write for example 4") from None


def positive(text: str, kind: Callable[[str], Any]) -> Any:  # noqa: ANN401 - int or float, as asked
    """Read a number above 0 and up to MAX_NUMBER.

    Raises:
        ValueError: it is none; the text quoted, and the bounds.
    """
    try:
        value = kind(text)
    except ValueError:
        value = 0
    # Engines take 32-bit numbers and would silently truncate larger ones. The budget has the same bound.
    if not 0 < value <= MAX_NUMBER:
        raise ValueError(f"{text!r} is not a number above 0 and up to {MAX_NUMBER}")
    return value
