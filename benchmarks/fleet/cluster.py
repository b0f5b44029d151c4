"""A Ray cluster of node processes: one is killed in the middle, one falls silent, one is too small, two are well.

    python benchmarks/fleet/cluster.py

Needs Ray (`pip install ray`). Prints and writes `cluster.md`: what came back and what was said of
the others. Exit 1 when it is anything but two records and three reasons.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pytest_rwkvperf.fleet import fleet_report  # noqa: E402 - the line above finds it
from tests.fleet import nodes  # noqa: E402 - likewise

TABLE = Path(__file__).with_suffix(".md")


def main() -> int:
    """Let them come to grief, and record it."""
    if find_spec("ray") is None:
        print("Ray is not installed: pip install ray, then run this again.")
        return 1
    with tempfile.TemporaryDirectory(prefix="rwkvperf-cluster-") as folder:
        merged, seconds = nodes.measure_with_failures(Path(folder))
    about = f"Made by `cluster.py` on {datetime.now(timezone.utc):%Y-%m-%d}, {platform.platform()}, in {seconds:.0f} s."
    text = fleet_report.as_markdown(merged).replace(
        "# Fleet\n", f"# Five nodes, three of which come to grief\n\n{about}\n", 1
    )
    print(text)
    TABLE.write_text(text, encoding="utf-8")
    return 0 if (len(merged.runs), len(merged.missing)) == (2, 3) else 1


if __name__ == "__main__":
    sys.exit(main())
