"""The settings of a run: what the texts of the options mean together."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.paths import user_path
from pytest_rwkvperf.reports import formats
from pytest_rwkvperf.run.option_values import path_hint, read_number, read_save, read_share
from pytest_rwkvperf.run.options import OPTIONS, SWITCHES, text_of, texts
from pytest_rwkvperf.witnesses.registry import CHEAP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pytest

    from pytest_rwkvperf.core.cases import ProtocolName
    from pytest_rwkvperf.environments.named_builds import NamedBuild
    from pytest_rwkvperf.reports.formats import ReportRequest
    from pytest_rwkvperf.reports.report import Language
    from pytest_rwkvperf.run.option_values import Save
    from pytest_rwkvperf.run.options import Option, Strictness

EVERY = "all"
"""The value of --rwkv-device for every device that the engines list."""

Suite = Literal["auto", "yes", "no", "invariants"]
Compare = Literal["auto", "stored", "ab"]


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
    ab: NamedBuild | None
    """The old build of an A/B run, this interpreter in A/A; None when stored figures are compared with first."""
    new: NamedBuild | None
    """The new build of an A/B run; None for this environment."""
    compare: Compare
    witnesses: tuple[str, ...]
    """The chosen witnesses' names; an engine is measured without those that do not suit it."""
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
    def ab_may_decide(self) -> bool:
        """Whether A/B against the baseline's software decides where stored figures do not suffice."""
        return self.compare == "auto" and self.ab is None and self.save == "no"

    def quants_of(self, backend: str) -> tuple[str, ...]:
        """The quants that are named for a backend, or for all; empty for its standard ones."""
        return self.quants_by_backend.get(backend, self.quants)

    @property
    def spans_devices(self) -> bool:
        """Whether several devices may be asked for, which pytest-xdist's workers can measure at the same time."""
        return len(self.devices) > 1 or EVERY in self.devices

    @property
    def measuring(self) -> bool:
        """Whether `--rwkv-backend` was given."""
        return bool(self.backend)


def read_settings(config: pytest.Config) -> Settings:
    """The settings of a run; the command line overrides the ini file.

    Raises:
        OptionError: a value is not understood; the message names the option and what is allowed.
    """
    raw = texts(config)
    typed = {option.name: _typed(config, option, raw[option.name]) for option in OPTIONS}
    quants, quants_by_backend = _quants(typed["quant"])
    save, save_crowded = read_save("--rwkv-save-baseline=", raw["save-baseline"])
    return Settings(
        backend=_backend(config, raw["backend"]),
        model=_model(config, raw["model"]),
        quants=quants,
        quants_by_backend=quants_by_backend,
        workloads=typed["workload"],
        batches=tuple(read_number("--rwkv-batch=", word, int) for word in typed["batch"]),
        devices=typed["device"],
        threads=tuple(read_number("--rwkv-threads=", word, int) for word in typed["threads"]),
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


def _typed(config: pytest.Config, option: Option, text: str) -> Any:  # noqa: ANN401, PLR0911 - one for each kind
    """An option's value, by its kind. A count or a path that is not given is None.

    Raises:
        OptionError: the text is not of this kind.
    """
    match option.kind:
        case "text":
            return text
        case "list":
            return tuple(_choice(option.name, word, option.allowed or (word,)) for word in _words(text))
        case "choice":
            return _choice(option.name, text, option.allowed)
        case "share":
            return read_share(f"{option.flag}=", text)
        case "count":
            return read_number(f"{option.flag}=", text, int) if text else None
        case "seconds":
            return read_number(f"{option.flag}=", text, float)
        case "path":
            return user_path(text, config.rootpath, f"{option.flag}=") if text else None


def _witnesses(words: tuple[str, ...]) -> tuple[str, ...]:
    """The witnesses that are named; of `auto` the cheap ones.

    Raises:
        OptionError: `none` is given together with others.
    """
    if "none" in words and set(words) != {"none"}:
        raise OptionError(f"--rwkv-witness={','.join(words)} names none and others; write none alone, or the names")
    named = [name for word in words for name in (CHEAP if word == "auto" else (word,))]
    return tuple(dict.fromkeys(name for name in named if name != "none"))


def _backend(config: pytest.Config, text: str) -> str:
    """The text, unchanged.

    An empty one turns off what an ini file or `addopts` turns on. Where they turn nothing on, it is an error: with an
    unset variable in a CI job, nothing would be measured, and the job would pass.
    """
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


def _old_build(raw: Mapping[str, str], *, same: bool) -> NamedBuild | None:
    """The old build that `--rwkv-ab`, `--rwkv-aa` and `--rwkv-compare` ask for; this interpreter for A/A."""
    ab, compare = raw["ab"], raw["compare"]
    if same and ab:
        raise OptionError(f"--rwkv-aa compares this interpreter with itself, --rwkv-ab={ab} with another; choose one")
    text = sys.executable if same else ab or ("baseline" if compare == "ab" else "")
    if not text:
        return None
    if raw["save-baseline"] != "no":
        raise OptionError("--rwkv-ab and --rwkv-aa compare two builds; run --rwkv-save-baseline by itself")
    from pytest_rwkvperf.environments import named_builds

    return named_builds.parse(text)


def _new_build(raw: Mapping[str, str]) -> NamedBuild | None:
    """What `--rwkv-new` names."""
    if not raw["new"]:
        return None
    if not raw["ab"]:
        raise OptionError(f"--rwkv-new={raw['new']} is compared with an old build; name it with --rwkv-ab")
    if raw["new"] == "baseline":
        raise OptionError("--rwkv-new=baseline: the baseline's software is the old side; write --rwkv-ab=baseline")
    from pytest_rwkvperf.environments import named_builds

    return named_builds.parse(raw["new"])


def _reports(config: pytest.Config) -> tuple[ReportRequest, ...]:
    """A relative path on the command line is relative to the current folder, in the ini file to the rootdir."""
    option = next(option for option in OPTIONS if option.name == "report")
    given = config.getoption(option.flag)
    folder = config.rootpath if given is None else config.invocation_params.dir
    return tuple(formats.parse(text, folder) for text in text_of(config, option).splitlines() if text.strip())


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
        text = SWITCHES.get(text.lower(), text)
    if text not in allowed:
        from pytest_rwkvperf.core.text import did_you_mean

        known = f"{did_you_mean(text, allowed)}; allowed: {', '.join(allowed)}"
        raise OptionError(f"--rwkv-{name}={text!r} is unknown{known}{path_hint(text)}")
    return text
