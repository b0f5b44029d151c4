"""`python -m pytest_rwkvperf.cli`, where the `rwkvperf` script is not on the path."""

from __future__ import annotations

import sys

from pytest_rwkvperf.cli.entry import main

sys.exit(main())
