"""The `rwkvperf` script: the rest is imported where Ctrl-C is already handled, since that takes a second."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the process's own command line; returns the exit status."""
    try:
        from pytest_rwkvperf.cli import main

        return main.main()
    except KeyboardInterrupt:  # during the import, or while the arguments were read
        sys.stderr.write("rwkvperf: interrupted; nothing was left behind\n")
        return 130
