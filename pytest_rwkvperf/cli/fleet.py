"""`rwkvperf fleet`: measure on every machine of a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.cli import merge
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.fleet import cluster
from pytest_rwkvperf.run.option_values import read_number

if TYPE_CHECKING:
    import argparse

    from pytest_rwkvperf.cli.console import Console

HELP = """measure on every machine of a Ray cluster
Each node runs pytest with the options after --, alone on its processors and GPUs, in its own environment, in which this
project and the engines must be installed. The records are joined as by `rwkvperf merge`. The exit status is 1 if a test
failed or a machine is missing: it died, did not answer in time, or has too little memory.

  rwkvperf fleet --address=10.0.0.1:6379 -o fleet.md -- --rwkv-backend=all --rwkv-quant=f16,q8_0
"""
PASSES_ON = True


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--address", required=True, help="the cluster's head, or auto on one of its machines")
    parser.add_argument("--timeout", default="3600", metavar="SECONDS", help="the time for each machine; default 3600")
    parser.add_argument("--memory", default="0", metavar="SIZE", help="the memory that a machine needs, for example 4G")
    parser.add_argument(
        "--folder",
        default="",
        metavar="DIR",
        help="the folder on each machine in which pytest runs; default: an empty one",
    )
    merge.add_outputs(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure everywhere, join, write, store."""
    merge.check_outputs(options)
    if not any(option.startswith("--rwkv-backend") for option in options.passed_on):
        raise OptionError("no engine is chosen; add -- --rwkv-backend=all")
    seconds = read_number("--timeout=", options.timeout, float, "3600")
    demands = cluster.Demands(seconds, cluster.memory_bytes(options.memory))
    with cluster.Cluster(options.address) as nodes:
        merged = nodes.run(options.passed_on, options.folder, demands, console.progress)
    return merge.finish(merged, options, console)
