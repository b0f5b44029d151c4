"""What holds for every test of this repository: pytester, and the rule for tests that need real engines."""

from __future__ import annotations

import os
import signal
from functools import cache
from importlib import metadata

import pytest

pytest_plugins = ["pytester"]

# Set before NumPy is loaded: with more BLAS threads in several processes, tests took five times longer.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@cache
def engines() -> dict[str, bool]:
    """Each built-in engine, and whether its distributions are installed; no test process imports an engine."""
    from pytest_rwkvperf.backends import registry

    return {
        name: all(map(_is_installed, registry.load(place).distributions)) for name, place in registry.BUILT_IN.items()
    }


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `engine` is skipped where its engine is not installed, and fails there under CI.

    One marked `gpu` is skipped where there is no GPU, under CI too: no machine of CI has one.
    """
    from pytest_rwkvperf.machine.fingerprint import nvidia_gpus

    if item.get_closest_marker("gpu") and not nvidia_gpus():
        pytest.skip("NVML finds no NVIDIA GPU on this machine")
    for marker in item.iter_markers("engine"):
        unknown = [name for name in marker.args if name not in engines()]
        if unknown or not marker.args:
            pytest.fail(f"the engine marker takes names among {', '.join(engines())}, not {unknown or 'nothing'}")
        missing = [name for name in marker.args if not engines()[name]]
        if missing:
            reason = f"{' and '.join(missing)} not installed; `make setup` installs every engine it can"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


# A shell without job control starts background commands with SIGINT ignored, which their children inherit (POSIX, Shell
# Command Language, "Signals and Error Handling"): tests that send SIGINT would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
