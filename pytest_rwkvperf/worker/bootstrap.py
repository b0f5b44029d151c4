"""The script that the worker's interpreter runs; the interpreter may be another environment's, without this project.

The package is loaded from beside this file. Nothing else of this environment is put on the path, so that the measured
engine is the other environment's own. Standard library only, in the syntax of older Pythons.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path


def _end_with_parent() -> None:
    """Have the kernel end this process with its parent, even inside native code (prctl(2), Linux).

    Elsewhere, and if the parent has already ended, a thread of `child` ends the process when the pipe closes.
    """
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)


def _take_pipes() -> tuple[int, int]:
    """Keep stdin and stdout as the private pipe; native code that prints on stdout reaches stderr instead."""
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, replies


def _load_package() -> None:
    folder = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        "pytest_rwkvperf", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None  # noqa: S101 - a path that ends in .py always gives a spec
    assert spec.loader is not None  # noqa: S101 - likewise
    module = importlib.util.module_from_spec(spec)
    sys.modules["pytest_rwkvperf"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036 - another environment's Python may be older than this project's
        sys.exit(f"{sys.executable} is Python {sys.version.split()[0]}; a worker needs 3.10 or newer")
    _end_with_parent()
    pipes = _take_pipes()
    # The script's own folder leads sys.path, unless PYTHONSAFEPATH is set, and would let `parent` or `messages` shadow
    # other packages.
    sys.path[:] = [entry for entry in sys.path if Path(entry) != Path(__file__).parent]
    _load_package()
    from pytest_rwkvperf.worker.child import main

    main(*pipes)
