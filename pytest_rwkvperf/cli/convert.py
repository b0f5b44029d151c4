"""`rwkvperf convert`: one model file written in another format."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.cli import output
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.models import derive
from pytest_rwkvperf.models.file_format import detect_format
from pytest_rwkvperf.models.header import shape_and_precision
from pytest_rwkvperf.models.model import errors_naming
from pytest_rwkvperf.models.model_store import locate
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    import argparse

    from pytest_rwkvperf.cli.console import Console
    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.checked_weights import Written

HELP = """write a model in another format
The formats follow from the suffixes: .pth (rwkv), .st or .safetensors (web-rwkv), .gguf (llama.cpp).

Values that the target's precision holds stay exact. Others are rounded to nearest even and counted; one that it cannot
hold at all is an error. Quantized .gguf files have no exact values and cannot be converted.

  rwkvperf convert rwkv7-g1-2.9b.pth rwkv7-g1-2.9b.gguf
  rwkvperf convert model.gguf model.pth --precision bf16
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="SOURCE", help="a model file, or a model as --rwkv-model takes it")
    parser.add_argument("target", metavar="TARGET", type=Path, help="the file to write")
    output.add_arguments(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    """Convert."""
    target: Path = options.target
    to = output.format_of(target)
    output.check_precision(to, options.precision)
    source = locate(options.source, console.progress)
    if isinstance(source, Path):
        kind = detect_format(source)
        if target.exists() and source.samefile(target):
            raise OptionError(f"{str(target)!r} is the source itself; name another target")
        shape, held = shape_and_precision(source, kind)
    else:
        kind, shape, held = to, source.shape, source.precision
    precision = options.precision or (held if to == "pth" else "f16")
    needed = derive.size_in(to, shape, precision)
    started = time.perf_counter()
    with output.writing(target, needed, console.progress, force=options.force) as temporary:
        if isinstance(source, Path):
            written = _convert(source, kind, temporary, to, options, console)
        else:
            name = f"synthetic {source.label}"
            written = derive.write(source, temporary, to, name, console.progress, options.precision)
    seconds = time.perf_counter() - started
    size = target.stat().st_size
    console.result(
        f"{target}: {size:,} bytes in {seconds:.1f} s ({size / seconds / 1e6:.0f} MB/s); {written.sentence}."
    )
    return 0


def _convert(
    source: Path, kind: Format, target: Path, to: Format, options: argparse.Namespace, console: Console
) -> Written:
    if kind == "pth":
        console.progress(f"reading {source.name} in a process of its own", 0.0)
        return WorkerTools(console.progress).convert_pth(source, target, to, options.precision)
    weights = derive.read(source, kind)
    with errors_naming(source):
        return derive.write(weights, target, to, source.stem, console.progress, options.precision)
