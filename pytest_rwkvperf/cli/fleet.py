"""`rwkvperf fleet`: measure on every machine of a Ray cluster."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pytest_rwkvperf.cli import merge
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.fleet import cluster
from pytest_rwkvperf.run.options import positive

if TYPE_CHECKING:
    from pytest_rwkvperf.cli.console import Console

HELP = """measure on every machine of a Ray cluster
Each node runs the ordinary pytest, alone on its processors and GPUs, in its own environment, which must have this
project and its engines. The records come back and are joined as `rwkvperf merge` does it. Exit status 1 when anything
failed or a machine is missing: it died, did not answer in time, or has too little memory.

  rwkvperf fleet --address=10.0.0.1:6379 -o fleet.md -- --rwkv-backend=all --rwkv-quant=f16,q8_0
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--address", required=True, help="the cluster's head, or auto on one of its machines")
    parser.add_argument(
        "--timeout", type=_seconds, default=3600.0, metavar="SECONDS", help="of a machine; default 3600"
    )
    parser.add_argument("--memory", default="0", metavar="SIZE", help="that a machine must have for it, as 4G")
    parser.add_argument("--folder", default="", metavar="DIR", help="on each machine, with tests; default an empty one")
    merge.add_outputs(parser)
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="pytest's, after --")


def _seconds(text: str) -> float:
    try:
        return float(positive(text, float))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; write for example 3600") from None


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure everywhere, join, write, store."""
    merge.check_outputs(options)
    if not any(one.startswith("--rwkv-backend") for one in options.arguments):
        raise OptionError("no engine is chosen; add -- --rwkv-backend=all")
    demands = cluster.Demands(options.timeout, cluster.memory_bytes(options.memory))
    with cluster.Cluster(options.address) as found:
        merged = found.run(options.arguments, options.folder, demands, console.progress)
    return merge.finish(merged, options, console)
