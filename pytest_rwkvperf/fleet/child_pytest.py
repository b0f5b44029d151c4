"""A script that runs pytest and dies with its parent, which Ray may kill without warning (prctl(2))."""

from __future__ import annotations

import signal
import sys


def _end_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    _end_with_parent()
    import pytest

    sys.exit(pytest.main(sys.argv[1:]))
