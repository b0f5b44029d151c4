"""`rwkvperf bisect`: the release that made a workload slower."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.bisect import environments, release_check, search
from pytest_rwkvperf.core.errors import OptionError

if TYPE_CHECKING:
    import argparse

    from pytest_rwkvperf.bisect.search import Answer
    from pytest_rwkvperf.cli.console import Console

HELP = """name the release of a package that made something slower
Releases between OLD and NEW are installed one by one, each into an environment of its own beside what is installed
here (kept in the cache folder), and measured in alternation with OLD. One that cannot be installed, does not run or
gives no clear answer is passed over; OLD itself has to run. Options after -- go to pytest. The exit status is 1 when
no release is slower.

  rwkvperf bisect llama-cpp-python 0.3.30..0.3.36 -- --rwkv-quant=q8_0 --rwkv-workload=tg128 --rwkv-budget=120
  rwkvperf bisect torch 2.10.0..2.13.0 --backend rwkv
"""

PASSES_ON = True
"""What stands after `--` is pytest's."""

BACKENDS = {"llama-cpp-python": "llama-cpp", "rwkv": "rwkv", "torch": "rwkv", "rwkvperf-web-rwkv": "web-rwkv"}
"""What measures a package, where that is plain."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("package", metavar="PACKAGE", help="its name on the index that pip uses")
    parser.add_argument("range", metavar="OLD..NEW", help="two of its versions")
    parser.add_argument("--backend", help=f"what to measure with; known for {', '.join(BACKENDS)}")


def run(options: argparse.Namespace, console: Console) -> int:
    """Search, telling each release's answer; then the release, or that there is none."""
    oldest, dots, newest = options.range.partition("..")
    if not dots:
        raise OptionError(f"{options.range!r} is no range; write OLD..NEW, for example 0.3.30..0.3.36")
    backend = options.backend or BACKENDS.get(options.package)
    if not backend:
        raise OptionError(f"nobody knows what measures {options.package}; add --backend")
    if options.package in BACKENDS:  # others may offer the backend themselves, in their releases alone
        registry.choose(backend, "--backend")  # before releases are installed for a name that nobody offers
    versions = environments.releases(options.package, oldest, newest)
    console.text(f"{len(versions)} releases: {', '.join(versions)}\n")
    console.progress(f"installing {options.package} {versions[0]}", 0.0)
    reference = environments.python_of(options.package, versions[0])

    answers: set[Answer] = set()

    def ask(version: str) -> Answer:
        answer, reason = _ask(options.package, version, reference, backend, options.passed_on, console)
        answers.add(answer)
        console.text(f"{options.package} {version}: {answer}: {reason}\n")
        return answer

    try:
        release_check.check(reference, backend, options.passed_on)
        found = search.first_slow(versions, ask)
    except release_check.OldestError as error:
        advice = "Name a later release as OLD, or correct what stands after --."
        message = f"{options.package} {versions[0]} cannot be measured: {error}\n  {advice}"
        raise OptionError(message) from error
    if found is None and answers <= {"skip"}:
        console.text(f"No release gave an answer beside {versions[0]}; see the reasons above.\n")
        return 1
    if found is None:
        console.text(f"No release is seen slower than {versions[0]}.\n")
        return 1
    doubt = f", or one of those passed over: {', '.join(found.skipped)}" if found.skipped else ""
    console.text(f"{options.package} {found.slow} is slower; {found.before} is not{doubt}.\n")
    return 0


def _ask(
    package: str, version: str, reference: str, backend: str, options: list[str], console: Console
) -> tuple[Answer, str]:
    console.progress(f"installing {package} {version}", 0.0)
    try:
        python = environments.python_of(package, version)
    except environments.BuildError as error:
        return "skip", str(error)
    console.progress(f"measuring {package} {version} in alternation with the oldest", 0.0)
    return release_check.compare(python, reference, backend, options)
