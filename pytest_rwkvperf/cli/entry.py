"""The `rwkvperf` script. It imports nothing before it can be interrupted without a traceback."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the process's own command line; gives the exit status."""
    try:
        from pytest_rwkvperf.cli import main

        return main.main()
    except KeyboardInterrupt:  # while that was imported, or its arguments were read
        sys.stderr.write("rwkvperf: interrupted; nothing was left behind\n")
        return 130
