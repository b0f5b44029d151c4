"""`rwkvperf synth`: a model of a public shape with synthetic weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.cli import model_files
from pytest_rwkvperf.core.cases import FORMATS
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.paths import user_path
from pytest_rwkvperf.models import derive, synthetic
from pytest_rwkvperf.models.shapes import SHAPES

if TYPE_CHECKING:
    from pytest_rwkvperf.cli.console import Console
    from pytest_rwkvperf.core.cases import Format

HELP = """write a model with synthetic weights of a public shape
The weights depend only on the shape and the seed: they are the same on every machine and in every format. The model is
as fast as a trained one of its shape; its text is meaningless.

  rwkvperf synth 0.1b --output bench.st
"""
PASSES_ON = False


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("shape", metavar="SHAPE", choices=list(SHAPES), help=f"one of {', '.join(SHAPES)}")
    parser.add_argument(
        "--format", choices=FORMATS, help="the file's format; default: by the suffix of --output, else pth"
    )
    parser.add_argument(
        "--output",
        type=user_path,
        metavar="FILE",
        help="the file to write; default: synthetic-SHAPE.FORMAT in this folder",
    )
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="the seed of the weights; default 0")
    model_files.add_arguments(parser)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number; write for example 1")
    return int(text)


def run(options: argparse.Namespace, console: Console) -> int:
    """Write the file."""
    seed = f":{options.seed}" if options.seed else ""
    model = synthetic.parse(f"{synthetic.PREFIX}{options.shape}{seed}")
    format, target = _target(options, model.label.replace(":", "-"))
    model_files.check_dtype(format, options.dtype)
    needed = derive.size_in(format, model.shape, options.dtype or derive.precision_in(format, model))
    with model_files.writing(target, needed, console.progress, force=options.force) as temporary:
        name = f"synthetic {model.label}"
        written = derive.write(model, temporary, format, name, console.progress, options.dtype)
    console.result(f"{target}: {target.stat().st_size:,} bytes; {written.sentence}.")
    return 0


def _target(options: argparse.Namespace, label: str) -> tuple[Format, Path]:
    """The format and the file, from `--format` and `--output`."""
    if options.output is None:
        kind: Format = options.format or "pth"
        return kind, Path(f"synthetic-{label}.{kind}")
    named = model_files.format_of(options.output)
    if options.format not in (None, named):
        raise OptionError(
            f"--format={options.format} and --output={options.output} are different formats; leave out --format"
        )
    return named, options.output
