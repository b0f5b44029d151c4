"""`rwkvperf convert`: write a model in another format."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.cli import model_files
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.paths import user_path
from pytest_rwkvperf.models import derive
from pytest_rwkvperf.models.file_format import read_header
from pytest_rwkvperf.models.header import MappedHeader
from pytest_rwkvperf.models.model import errors_naming
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.models.synthetic import SyntheticModel
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    import argparse

    from pytest_rwkvperf.cli.console import Console
    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.checked_weights import Written
    from pytest_rwkvperf.models.header import Header
    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.streams import Progress

HELP = """write a model in another format
The suffixes give the formats: .pth (rwkv), .st or .safetensors (web-rwkv), .gguf (llama.cpp).

Values that the target's precision can represent stay exact. Others are rounded to nearest even and counted; a value
outside its range is an error. Quantized .gguf files cannot be converted, because their original values are lost.

  rwkvperf convert rwkv7-g1-2.9b.pth rwkv7-g1-2.9b.gguf
  rwkvperf convert model.gguf model.pth --dtype bf16
"""
PASSES_ON = False


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="SOURCE", help="a model file, or a model as --rwkv-model takes it")
    parser.add_argument("target", metavar="TARGET", type=user_path, help="the file to write")
    model_files.add_arguments(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    """Convert."""
    target: Path = options.target
    to = model_files.format_of(target)
    model_files.check_dtype(to, options.dtype)
    tools = WorkerTools(console.progress)
    located = ModelStore(tools, console.progress).locate(options.source)
    source = read_header(located) if isinstance(located, Path) else located
    if isinstance(located, Path) and target.exists() and located.samefile(target):
        raise OptionError(f"{str(target)!r} is the source itself; name another target")
    precision = options.dtype or (source.precision if to == "pth" else "f16")
    needed = derive.size_in(to, source.shape, precision)
    started = time.perf_counter()
    with model_files.writing(target, needed, console.progress, force=options.force) as temporary:
        written = _convert(source, temporary, to, options.dtype, tools, console.progress)
    seconds = time.perf_counter() - started
    size = target.stat().st_size
    console.result(
        f"{target}: {size:,} bytes in {seconds:.1f} s ({size / seconds / 1e6:.0f} MB/s); {written.sentence}."
    )
    return 0


def _convert(
    source: SyntheticModel | Header,
    target: Path,
    to: Format,
    precision: Precision | None,
    tools: WorkerTools,
    progress: Progress,
) -> Written:
    if isinstance(source, SyntheticModel):
        return derive.write(source, target, to, f"synthetic {source.label}", progress, precision)
    path = source.path
    if not isinstance(source, MappedHeader):
        progress(f"reading {path.name} in a process of its own", 0.0)
        return tools.convert_pth(path, target, to, precision)
    weights = source.weights()
    with errors_naming(path):
        return derive.write(weights, target, to, path.stem, progress, precision)
