"""`rwkvperf bisect`: find the release or the commit that made a workload slower."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import OptionError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pytest_rwkvperf.bisect.bisection import Request, Result
    from pytest_rwkvperf.bisect.states import State
    from pytest_rwkvperf.cli.console import Console

HELP = """find the release of a package, or the commit of an engine, that made something slower
Builds releases or commits between GOOD and BAD, keeps the builds in the cache folder, and measures each in alternation
with GOOD. It first confirms that BAD is slower. A search that tolerates wrong answers then finds the first slow release
or commit, which is compared with the one before it. Those that cannot be built, do not run or give no clear answer are
left out; those that compute wrong answers are reported. Options after -- go to pytest. The exit status is 1 if nothing
is slower.

Commits: an engine's name among llama.cpp, llama-cpp-python, web-rwkv and rwkv, with the repository; releases: a
package's name on the index that pip uses.

  rwkvperf bisect llama.cpp b9868..b9890 --repo ../llama.cpp -- --rwkv-quant=q8_0 --rwkv-workload=tg128
  rwkvperf bisect llama-cpp-python 0.3.30..0.3.36 -- --rwkv-quant=q8_0 --rwkv-workload=tg128 --rwkv-budget=120
  rwkvperf bisect torch 2.10.0..2.13.0 --backend rwkv
"""

PASSES_ON = True


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("package", metavar="ENGINE|PACKAGE", help="the engine or package to search")
    parser.add_argument("range", metavar="GOOD..BAD", help="two of its versions, or two revisions of its repository")
    parser.add_argument(
        "--repo",
        help="the repository with the revisions, a path or a URL; default: the engine's; of a package, releases",
    )
    parser.add_argument("--backend", help="the backend to measure with; default: that of the engine or of its package")
    parser.add_argument("--confidence", default="95%", help="the probability that the result is right; default 95%%")
    parser.add_argument(
        "--by",
        choices=("time", "instructions"),
        default="time",
        help="what decides: times; or the instructions of llama.cpp on a CPU, counted by valgrind on a small model, "
        "which noise does not change and which do not show slower memory; default time",
    )
    parser.add_argument("--resume", action="store_true", help="continue the same search where it was interrupted")
    parser.add_argument("--json", metavar="FILE", help="write the result with every step")
    parser.add_argument("--report", metavar="FILE", help="write a report in markdown, to paste into an issue")


def run(options: argparse.Namespace, console: Console) -> int:
    """Search, printing the answer of each step and the result."""
    from pytest_rwkvperf.bisect import bisection, comparing, report, search
    from pytest_rwkvperf.bisect.journal import Journal
    from pytest_rwkvperf.core import folders, locks
    from pytest_rwkvperf.environments.build import BUILD_VARIABLES
    from pytest_rwkvperf.run.option_values import read_share

    confidence = read_share("--confidence=", options.confidence)
    states, backend = _states(options, console)
    if options.by == "instructions":
        _prepare_counting(backend)
    passed_on = [*options.passed_on, *(bisection.COUNTING if options.by == "instructions" else ())]
    variables = {name: os.environ[name] for name in BUILD_VARIABLES if name in os.environ}
    request = bisection.Request(states, backend, passed_on, confidence, options.by, variables)
    steps = search.expected_answers(len(states), bisection.RATES[options.by]) + 2  # BAD, and the confirmation
    console.text(f"{states[0].label} … {states[-1].label}: {len(states)} states, about {steps} steps\n")
    path = folders.in_cache("bisections") / f"{_name(request, options.package)}.jsonl"
    with locks.hold(path.with_suffix(".lock"), on_wait=lambda who: console.progress(f"waiting for {who}", 0.0)):
        journal = Journal.open(path, resume=options.resume)
        console.text(f"journal: {path} ({journal.known} steps known)\n")
        bisecting = bisection.Bisection(
            request,
            journal,
            say=lambda sentence: console.progress(sentence, 0.0),
            on_step=lambda outcome: console.text(f"{report.step_line(outcome, states)}\n"),
        )
        try:
            result = bisecting.run()
        except comparing.OldStateError as error:
            advice = "Name a later one as GOOD, or correct the options after --."
            raise OptionError(f"{states[0].label} cannot be measured: {error}\n  {advice}") from error
    _write(options, request, result)
    console.text(report.text(result, request))
    return 0 if result.suspects else 1


def _states(options: argparse.Namespace, console: Console) -> tuple[Sequence[State], str]:
    """What is searched, and the backend that measures it."""
    from pytest_rwkvperf.backends import registry
    from pytest_rwkvperf.bisect import states
    from pytest_rwkvperf.environments.builders.registry import BUILDERS

    known = registry.by_distribution()
    good, dots, bad = options.range.partition("..")
    if not dots or not good or not bad:
        example = "b9868..b9890" if options.package in BUILDERS else "0.3.30..0.3.36"
        raise OptionError(f"{options.range!r} is not a range; write GOOD..BAD, for example {example}")
    builder = BUILDERS.get(options.package)
    of_commits = builder is not None and (options.repo or options.package not in known)
    if builder is None and options.repo:
        raise OptionError(f"{options.package} is no engine that is built from source; known: {', '.join(BUILDERS)}")
    backend = options.backend or (builder.backend if builder else known.get(options.package))
    if not backend:
        raise OptionError(f"no backend is known for {options.package}; add --backend")
    if of_commits or options.package in known:  # any other package may provide the backend, in its releases alone
        registry.choose(backend, "--backend")  # refuse an unknown name before anything is built
    if not of_commits:
        return states.releases(options.package, good, bad), backend
    assert builder is not None  # noqa: S101 - as `of_commits` says
    return states.commits(builder.name, _repository(options.repo or builder.upstream, console), good, bad), backend


def _repository(text: str, console: Console) -> str:
    """A URL as it is; a path as a full one.

    Raises:
        OptionError: there is no repository at the path, or the URL holds a password.
    """
    from pytest_rwkvperf.environments import git

    if git.is_url(text):
        git.check_url(text)
        return text
    path = Path(text).expanduser().resolve()
    if not path.is_dir() or not git.is_repository(path):
        raise OptionError(f"--repo={text} is no git repository; give the folder of one, or a URL")
    if git.is_changed(path):
        console.progress(f"{path} has uncommitted changes, which no commit has: they take no part", 0.0)
    return str(path)


def _name(request: Request, package: str) -> str:
    """The same for the same search: its states, backend and options."""
    names = [state.name for state in request.states]
    told = repr((package, names, request.backend, list(request.options)))
    return f"{package}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def _prepare_counting(backend: str) -> None:
    """Build for what valgrind can execute: all states alike.

    Raises:
        OptionError: it cannot count this engine's work, or is not here.
    """
    from pytest_rwkvperf.witnesses.instructions import WITHOUT_AVX512, Instructions

    if backend != "llama-cpp":
        raise OptionError(f"--by=instructions counts the work of llama.cpp, not of {backend}; leave it out")
    if absence := Instructions().absence():
        raise OptionError(f"--by=instructions: {absence}")
    os.environ["CMAKE_ARGS"] = f"{os.environ.get('CMAKE_ARGS', '')} {WITHOUT_AVX512['CMAKE_ARGS']}".strip()


def _write(options: argparse.Namespace, request: Request, result: Result) -> None:
    from pytest_rwkvperf.bisect import report
    from pytest_rwkvperf.core.atomic import write_atomically

    for path, render in ((options.json, report.to_json), (options.report, report.markdown)):
        if path:
            write_atomically(Path(path).expanduser(), render(result, request).encode())
