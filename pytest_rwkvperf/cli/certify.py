"""`rwkvperf certify`: how reliable the gate is on this machine, tested with planted slowdowns."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import CertificateError, OptionError
from pytest_rwkvperf.core.paths import user_path
from pytest_rwkvperf.run.option_values import read_number, read_share

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_rwkvperf.certify.certificate import Certificate, Subject
    from pytest_rwkvperf.certify.trials import Trial
    from pytest_rwkvperf.cli.console import Console
    from pytest_rwkvperf.store.record import Record

HELP = """measure which slowdowns the gate finds on this machine, and how often it is wrong
Saves a baseline of an engine, then runs the gate against it in turns: with the engine unchanged, and with every call of
it made slower by 2, 5, 10 and 20 %. The results go into a folder: certificate.json (false alarms and found slowdowns
with Clopper and Pearson's bounds, seconds to decide, all trials), certificate.svg, and certificate.md with a paragraph
to paste. Every trial is stored when it ends: Ctrl-C loses only the running one, and the same command continues later.
Run it under the load that the machine has when it gates. Options after -- go to pytest.

  rwkvperf certify --minutes 60
  rwkvperf certify --minutes 30 --backend rwkv -- --rwkv-quant=fp32 --rwkv-workload=pp512,tg32 --rwkv-budget=40
  rwkvperf certify --minutes 0        # only write the files again, from the stored trials
"""
PASSES_ON = True

SLOWDOWNS = "0,2%,5%,10%,20%"

BUDGET = "--rwkv-budget=60"
"""Of a run, unless an option after -- says otherwise: about a minute, as long as a gate on pull requests may take."""

_NAME = "certificate"
_INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--minutes", default="60", help="start no trial after this many; default 60")
    parser.add_argument("--backend", default="llama-cpp", help="the engine; default llama-cpp")
    parser.add_argument(
        "--slowdowns", default=SLOWDOWNS, help=f"the slowdowns to plant; default {SLOWDOWNS.replace('%', '%%')}"
    )
    parser.add_argument(
        "--out",
        default=user_path(_NAME),
        type=user_path,
        metavar="FOLDER",
        help="the folder to write to; default certificate",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Run trials until the time is over, and write the certificate of all stored trials."""
    from pytest_rwkvperf.certify import plot

    plot.check_installed()
    minutes = 0.0 if options.minutes == "0" else read_number("--minutes=", options.minutes, float, "60")
    slowdowns = _slowdowns(options.slowdowns)
    path = options.out / f"{_NAME}.json"
    known = _read(path)
    if not minutes:
        if known is None:
            raise OptionError(f"{path} is not there, so there are no trials to show; give --minutes above 0")
        _publish(known, options.out, console)
        return 0
    try:
        _take_trials(options, slowdowns, time.monotonic() + 60 * minutes, console)
    except KeyboardInterrupt:
        console.text("Interrupted. The stored trials are kept, and the same command continues.\n")
        return _INTERRUPTED
    finally:
        if (found := _read(path)) is not None and found.trials:
            _publish(found, options.out, console)
    return 0


def _slowdowns(text: str) -> list[float]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    return list(dict.fromkeys(0.0 if word in ("0", "0%") else read_share("--slowdowns=", word) for word in words))


def _take_trials(options: argparse.Namespace, slowdowns: Sequence[float], until: float, console: Console) -> None:
    """Save a baseline, then take trials in turn; each is written before the next one begins."""
    from pytest_rwkvperf.backends import registry
    from pytest_rwkvperf.certify.trials import trials

    chosen, _ = registry.choose(options.backend, "--backend")
    if len(chosen) != 1 or next(iter(chosen)) in registry.EXECUTABLES:
        raise OptionError(f"--backend={options.backend} must be one engine; allowed: {', '.join(registry.locations())}")
    (location,) = chosen.values()
    own = _options(options)
    path, started = options.out / f"{_NAME}.json", time.monotonic()
    with trials(location) as running:
        console.progress("saving the unchanged engine's baseline", 0.0)
        certificate = _certificate(running.save_baseline(*own), options, _read(path))
        while time.monotonic() < until:
            slowdown = certificate.next_slowdown(slowdowns)
            done = (time.monotonic() - started) / (until - started)
            console.progress(f"trial {len(certificate.trials) + 1}: {_planted(slowdown)}", done)
            certificate = certificate.with_trial(running.take(slowdown, *own))
            _write(path, certificate)
            console.text(_line(certificate.trials[-1], len(certificate.trials)))


def _options(options: argparse.Namespace) -> tuple[str, ...]:
    """Pytest's, in every run."""
    given = tuple(options.passed_on)
    return given if any(word.startswith("--rwkv-budget") for word in given) else (BUDGET, *given)


def _certificate(baseline: Record, options: argparse.Namespace, known: Certificate | None) -> Certificate:
    """The certificate to go on with, or a new one.

    Raises:
        CertificateError: the one that is there is about something else.
    """
    from pytest_rwkvperf.certify.certificate import Certificate, Subject

    case, item = next((case, item) for case, item in baseline.items() if case.measured and case.measured.software)
    measured = case.measured
    assert measured is not None  # noqa: S101 - chosen above
    assert measured.software is not None  # noqa: S101 - chosen above
    subject = Subject(
        backend=options.backend,
        versions=measured.versions,
        software=measured.software.identity,
        options=_options(options),
        machine=baseline.fingerprint,
        project_version=baseline.project_version,
    )
    if known is None:
        started = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Certificate(subject, started, item.tolerance or 0.0)
    _check_same(known.subject, subject, options.out)
    return known


def _check_same(known: Subject, now: Subject, folder: Path) -> None:
    differing = [name for name in type(now).__slots__ if getattr(known, name) != getattr(now, name)]
    if differing:
        raise CertificateError(
            f"the certificate in {folder} was made with another {' and another '.join(differing)}; name another folder "
            "with --out, or move it away"
        )


def _read(path: Path) -> Certificate | None:
    from pytest_rwkvperf.certify.certificate import FORMAT

    return FORMAT.read(path)


def _write(path: Path, certificate: Certificate) -> None:
    from pytest_rwkvperf.certify.certificate import FORMAT

    FORMAT.update(path, replace(certificate, trials=(), shown=()), lambda _: certificate)


def _publish(certificate: Certificate, folder: Path, console: Console) -> None:
    """Write the picture and the paragraph, and print them."""
    from pytest_rwkvperf.certify import plot
    from pytest_rwkvperf.certify.certificate import paragraph, table
    from pytest_rwkvperf.core.atomic import write_atomically

    text = f"{paragraph(certificate)}\n\n![certificate]({_NAME}.svg)\n\n{table(certificate)}"
    try:
        write_atomically(folder / f"{_NAME}.md", text.encode())
        write_atomically(folder / f"{_NAME}.svg", plot.svg(certificate).encode())
    except OSError as error:
        raise CertificateError(f"{folder} cannot be written to: {error}; name another folder with --out") from error
    console.text(f"\n{table(certificate)}\n{paragraph(certificate)}\n\nWrote {folder}\n")


def _planted(slowdown: float) -> str:
    return f"slowed by {slowdown:.0%}" if slowdown else "unchanged"


def _line(trial: Trial, number: int) -> str:
    verdicts = ", ".join(f"{item.item} {item.verdict}" for item in trial.items)
    return f"{number}. {_planted(trial.slowdown)}: {verdicts} ({trial.seconds:.0f} s)\n"
