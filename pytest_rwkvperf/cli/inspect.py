"""`rwkvperf inspect`: show what a model file contains."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.models.model import ModelFile
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection

    from pytest_rwkvperf.cli.console import Console
    from pytest_rwkvperf.models.header import TensorEntry

HELP = """show what a model file contains
Shows shape, parameters, tensors, quant, size, and the hash of the values, which is the same for a .pth, .st and .gguf
with the same numbers.

The file is checked as before a measurement. A .pth is unpickled in a separate process, by torch's weights_only loader,
after its directory and its opcodes were checked.

  rwkvperf inspect rwkv7-g1-2.9b.pth --tensors
"""
PASSES_ON = False


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", help="a model file, or a model on a hub as --rwkv-model takes it")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")


def run(options: argparse.Namespace, console: Console) -> int:
    """Print the summary, and the tensors if asked."""
    models = ModelStore(WorkerTools(console.progress), console.progress)
    file = models.resolve(options.file).source
    if not isinstance(file, ModelFile):
        raise OptionError(f"{options.file!r} is not a file; write one with `rwkvperf synth`")
    tensors = models.header(file).tensors.values()
    console.result(_summary(file, tensors))
    if options.tensors:
        console.result(_list(tensors))
    return 0


def _summary(file: ModelFile, tensors: Collection[TensorEntry]) -> Table:
    shape, kinds = file.shape, Counter(tensor.kind for tensor in tensors)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in (
        ("file", str(file.path)),
        ("format", f".{file.format}"),
        ("size", f"{file.size_bytes:,} bytes ({file.size_bytes / (1 << 30):.2f} GiB)"),
        ("quant", file.quant),
        ("parameters", f"{shape.parameters:,} ({shape.parameters / 1e9:.2f} B)"),
        ("shape", f"{shape.layers} layers, width {shape.width}, {shape.heads} heads of {shape.head_size}"),
        ("ranks", f"w {shape.rank_w}, a {shape.rank_a}, v {shape.rank_v}, g {shape.rank_g}"),
        ("vocabulary", f"{shape.vocabulary:,}"),
        ("tensors", f"{len(tensors)} ({', '.join(f'{count} {kind}' for kind, count in kinds.most_common())})"),
        ("content hash", file.content_hash),
    ):
        table.add_row(name, value)
    return table


def _list(tensors: Collection[TensorEntry]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("tensor")
    table.add_column("type")
    table.add_column("shape")
    table.add_column("bytes", justify="right")
    for tensor in tensors:
        dims = " × ".join(map(str, tensor.shape))  # noqa: RUF001 - the sign for dimensions
        table.add_row(tensor.name, tensor.kind, dims, f"{tensor.nbytes:,}")
    return table
