"""The options, their ini twins, and the text that each one has in a run; `run/settings.py` says what it means."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from pytest_rwkvperf.backends.registry import BY_HAND_ONLY, EXECUTABLES, IN_ALL
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.reports import formats
from pytest_rwkvperf.witnesses.registry import WITNESSES

Strictness = Literal["skip", "no-baseline", "inconclusive", "more-work"]

STRICTNESS: tuple[Strictness, ...] = ("skip", "no-baseline", "inconclusive", "more-work")

_WITNESSES = ("auto", "none", *WITNESSES)

Kind = Literal["text", "list", "count", "seconds", "share", "choice", "path"]

_SCALAR: Any = str | int | float | bool
"""The type of an ini option of one value, for a pytest that knows unions (9.2)."""

SWITCHES = {"true": "yes", "on": "yes", "1": "yes", "false": "no", "off": "no", "0": "no"}
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
    """How its text is read, wherever it comes from (`_typed` in `run/settings.py`)."""
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
        "turn measuring on; on the command line it also deselects every test that does not measure. all: every "
        "backend; the tests of a missing one are skipped, with the command that installs it. NAME: a backend that must "
        f"be installed: {', '.join(IN_ALL)}, those that installed distributions add, and these, which are not in all: "
        f"{', '.join(sorted(BY_HAND_ONLY))}; {', '.join(f'{name}:/path' for name in EXECUTABLES)} measure with that "
        "program itself",
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
        "precisions by the backends' own names, each for every backend that has it (fp32,q8_0,int8@31), or for one "
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
        "numbers of sequences at once, for every workload without @b: --rwkv-batch=1,8,32 measures tg128 as tg128, "
        "tg128@b8 and tg128@b32. Default: 1",
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
        "values of an engine's own settings that change its speed (llama-cpp.ubatch=128,512); may be repeated. Each "
        "value, and each combination of values of several settings, is a case of its own. Every engine has the setting "
        "chunk, which replaces --rwkv-chunk (web-rwkv.chunk=64,128). The error for an unknown name lists the settings",
        "BACKEND.NAME=LIST",
        repeatable=True,
    ),
    Option(
        "protocol",
        "uniform",
        "uniform times all engines in the same way; native times each as its own tool does (web-rwkv bench, "
        "llama-bench, the guide's three-turn chat for rwkv), for comparison with figures posted earlier. Both: "
        "uniform,native",
        "LIST",
        kind="list",
        allowed=("uniform", "native"),
    ),
    Option(
        "suite",
        "auto",
        "whether to add the shipped tests; auto: if no test of your own uses rwkv_perf. invariants: add instead those "
        "that need no baseline, for example that a longer context costs RWKV neither time nor memory",
        "auto|yes|no|invariants",
        kind="choice",
        allowed=("auto", "yes", "no", "invariants"),
    ),
    Option(
        "save-baseline",
        "no",
        "store this run in this machine's baseline, beside older sessions (append) or in their place (replace). A "
        "regression is stored only with replace, and what was measured while other processes were busy only with "
        ",crowded (append,crowded)",
        "append|replace[,crowded]",
        bare="append",
    ),
    Option(
        "ab",
        "",
        "compare with an old build of the engine instead of with stored figures: both are measured in alternation, "
        "so that load on a shared machine affects both. The old build is that of another interpreter (PYTHON); the "
        "software that the baseline was measured with (baseline); a requirement, which is installed into an "
        "environment of its own (llama-cpp-python==0.3.35, 'rwkv @ git+https://HOST/REPO@COMMIT', a wheel, a source "
        "folder); an engine's source, which is compiled (llama.cpp@REVISION, REPOSITORY@REVISION, a folder as it is); "
        "llama.cpp's libraries in a folder (lib:FOLDER); or a program (llama-bench:/path) if --rwkv-backend names one",
        "PYTHON|baseline|REQUIREMENT|SOURCE|lib:FOLDER",
    ),
    Option(
        "new",
        "",
        "with --rwkv-ab: the new build, in the same forms. Default: this environment",
        "PYTHON|REQUIREMENT|SOURCE|lib:FOLDER",
    ),
    Option(
        "compare",
        "auto",
        "what decides. auto: software identical to the baseline's passes; otherwise stored figures decide, and where "
        "they do not suffice, A/B against the baseline's software, rebuilt from baselines/reference.json. stored: only "
        "stored figures. ab: only A/B, as --rwkv-ab=baseline. --rwkv-ab and --rwkv-aa override this option",
        "auto|stored|ab",
        kind="choice",
        allowed=("auto", "stored", "ab"),
    ),
    Option(
        "aa",
        "no",
        "A/B with this interpreter on both sides: shows which slowdowns this machine's noise hides, and whether "
        "unchanged code is called slower",
        "yes|no",
        bare="yes",
        kind="choice",
        allowed=("yes", "no"),
    ),
    Option(
        "fewer-threads",
        "no",
        "let A/B measure both sides with fewer threads while other processes use the processors; the verdict says with "
        "how many",
        "yes|no",
        bare="yes",
        kind="choice",
        allowed=("yes", "no"),
    ),
    Option("baseline-dir", "baselines", "folder of the baselines, relative to the rootdir", "DIR", kind="path"),
    Option(
        "keep-wheels",
        "",
        "a folder for wheels of packages that were not installed from an index: --rwkv-save-baseline puts them there, "
        "and --rwkv-ab=baseline finds them by their hash",
        "DIR",
        kind="path",
    ),
    Option(
        "false-alarms",
        "1%",
        "the chance that a run of unchanged code has a REGRESSION, over all its workloads",
        "PERCENT",
        kind="share",
    ),
    Option(
        "wrong-pass", "5%", "the chance that a workload slower than its tolerance has a PASS", "PERCENT", kind="share"
    ),
    Option("tolerance", "5%", "the largest slowdown that passes, as a share of the time", "PERCENT", kind="share"),
    Option(
        "precision", "2%", "stop measuring a case once its interval's half-width is below this", "PERCENT", kind="share"
    ),
    Option(
        "budget",
        "240",
        "seconds for the whole run, divided among the cases; each gets at least 3 processes x 3 samples, however long "
        "that takes",
        "SECONDS",
        kind="seconds",
    ),
    Option(
        "strict",
        "",
        "what fails a test besides REGRESSION and INVALID: skip, no-baseline, inconclusive, more-work (found by an "
        "exact witness); all four without a value",
        "LIST",
        bare=",".join(STRICTNESS),
        kind="list",
        allowed=STRICTNESS,
    ),
    Option(
        "witness",
        "auto",
        "what counts each engine's work, after it was timed: operations (rwkv), graph (llama.cpp's nodes), kernels (on "
        "CUDA, by CUPTI), instructions (llama.cpp on a CPU, by valgrind: takes minutes, and an engine with AVX-512 is "
        "compiled again without it). auto: those that are exact and take seconds; none: count nothing",
        "auto|none|LIST",
        kind="list",
        allowed=_WITNESSES,
    ),
    Option(
        "report",
        "",
        f"write a report; may be repeated. The format is given by the file's suffix ({', '.join(formats.SUFFIXES)}) "
        f"or before the file: FORMAT:FILE with one of {', '.join(formats.FORMATS)}",
        "FILE",
        repeatable=True,
    ),
    Option(
        "history",
        "",
        "store this run's record in a database: an SQLite file, sqlite:///FILE or postgresql://USER@HOST/DATABASE. "
        "A run that cannot be stored now is kept on this disk and sent with the next one",
        "FILE|URL",
    ),
    Option(
        "report-language",
        "en",
        "language of reports for people: English or Chinese",
        "en|zh",
        kind="choice",
        allowed=("en", "zh"),
    ),
)


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


def are_given(config: pytest.Config) -> bool:
    """Whether anything is asked for by an option or a line of the ini file.

    Raises:
        OptionError: as `text_of`.
    """
    on_command_line = any(config.getoption(option.flag) is not None for option in OPTIONS)
    return on_command_line or any(text_of(config, option) != option.default for option in OPTIONS)


def texts(config: pytest.Config) -> dict[str, str]:
    """Every option's text by name, the command line before the ini file; several values are lines."""
    return {option.name: text_of(config, option) for option in OPTIONS}


def text_of(config: pytest.Config, option: Option) -> str:
    """An option's text from the command line or, if it is not given there, from the ini file.

    Raises:
        OptionError: the file's value has a type that the option does not take.
    """
    if (given := config.getoption(option.flag)) is not None:
        return _text(option, given)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pytest's, about a list in place of one value, which `_text` refuses
            value = config.getini(option.ini)
    except (pytest.UsageError, TypeError, ValueError) as error:
        value = _in_toml(config, option.ini)
        if value is None:
            raise OptionError(f"{error}; {option.ini} takes {_form(option)}") from error
    return _text(option, value)


def _in_toml(config: pytest.Config, name: str) -> object:
    """A setting's value in a TOML file; None if the file does not set it.

    pytest checks values of native TOML against the declared type: for a list it refuses a string, and numbers in the
    list. This project reads all these forms.
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
    """What a file may contain for an option, for error messages."""
    if option.is_listed or option.name == "backend":
        return "a list, or one text with commas or line breaks between the values"
    return "one value"


def _text(option: Option, value: object) -> str:
    """An option's value as on the command line: a file may hold lists, numbers and truth values.

    Raises:
        OptionError: it is a table, or a list where the option takes one value.
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
    """The text; for an option that needs no value (`bare`), a truth value becomes the value that it stands for."""
    word = SWITCHES.get(text.lower(), text.lower())
    if option.bare is None or word not in ("yes", "no"):
        return text
    return option.bare if word == "yes" else "" if option.kind == "list" else "no"
