"""`rwkvperf bisect`: find the release that made a workload slower."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import OptionError

if TYPE_CHECKING:
    import argparse

    from pytest_rwkvperf.bisect.search import Answer
    from pytest_rwkvperf.cli.console import Console

HELP = """name the release of a package that made something slower
Releases between OLD and NEW are installed one by one, each into an environment of its own that shares everything else
with this one (kept in the cache folder), and measured in alternation with OLD. A release that cannot be installed, does
not run or gives no clear answer is skipped; OLD itself must run. Options after -- go to pytest. The exit status is 1 if
no release is slower.

  rwkvperf bisect llama-cpp-python 0.3.30..0.3.36 -- --rwkv-quant=q8_0 --rwkv-workload=tg128 --rwkv-budget=120
  rwkvperf bisect torch 2.10.0..2.13.0 --backend rwkv
"""

PASSES_ON = True

BACKENDS = {"llama-cpp-python": "llama-cpp", "rwkv": "rwkv", "torch": "rwkv", "rwkvperf-web-rwkv": "web-rwkv"}
"""The backend that measures a package."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("package", metavar="PACKAGE", help="its name on the index that pip uses")
    parser.add_argument("range", metavar="OLD..NEW", help="two of its versions")
    parser.add_argument("--backend", help=f"what to measure with; known for {', '.join(BACKENDS)}")


def run(options: argparse.Namespace, console: Console) -> int:
    """Search, printing the answer of each release and the result."""
    from pytest_rwkvperf.backends import registry
    from pytest_rwkvperf.bisect import release_check, search
    from pytest_rwkvperf.environments import index

    oldest, dots, newest = options.range.partition("..")
    if not dots:
        raise OptionError(f"{options.range!r} is not a range; write OLD..NEW, for example 0.3.30..0.3.36")
    backend = options.backend or BACKENDS.get(options.package)
    if not backend:
        raise OptionError(f"no backend is known for {options.package}; add --backend")
    if options.package in BACKENDS:  # any other package may provide the backend itself, in its releases alone
        registry.choose(backend, "--backend")  # refuse an unknown name before anything is installed
    versions = index.releases(options.package, oldest, newest)
    console.text(f"{len(versions)} releases: {', '.join(versions)}\n")
    oldest_python = _python_of(options.package, versions[0], console)

    answers: set[Answer] = set()

    def ask(version: str) -> Answer:
        answer, reason = _ask(options, version, oldest_python, backend, console)
        answers.add(answer)
        console.text(f"{options.package} {version}: {answer}: {reason}\n")
        return answer

    try:
        release_check.check_oldest(oldest_python, backend, options.passed_on)
        result = search.first_slow(versions, ask)
    except release_check.OldestReleaseError as error:
        advice = "Name a later release as OLD, or correct the options after --."
        message = f"{options.package} {versions[0]} cannot be measured: {error}\n  {advice}"
        raise OptionError(message) from error
    if result is None:
        unknown = f"No release could be compared with {versions[0]}; see the reasons above.\n"
        console.text(unknown if answers <= {"skip"} else f"No release is seen slower than {versions[0]}.\n")
        return 1
    doubt = f", or one of those skipped: {', '.join(result.skipped)}" if result.skipped else ""
    console.text(f"{options.package} {result.slow} is slower; {result.before} is not{doubt}.\n")
    return 0


def _ask(
    options: argparse.Namespace, version: str, oldest_python: str, backend: str, console: Console
) -> tuple[Answer, str]:
    from pytest_rwkvperf.bisect import release_check
    from pytest_rwkvperf.environments import build

    try:
        python = _python_of(options.package, version, console)
    except build.BuildError as error:
        return "skip", str(error)
    console.progress(f"measuring {options.package} {version} in alternation with the oldest", 0.0)
    return release_check.compare(python, oldest_python, backend, options.passed_on)


def _python_of(package: str, version: str, console: Console) -> str:
    """The interpreter of an environment with a release.

    Raises:
        BuildError: it cannot be installed.
    """
    from pytest_rwkvperf.environments import build, requirements

    requirement = requirements.of_text(f"{package}=={version}")
    return build.python_of([requirement], lambda sentence: console.progress(sentence, 0.0))
