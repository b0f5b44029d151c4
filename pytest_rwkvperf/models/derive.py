"""One model written in another format, and the two pieces of that work that belong in a worker process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.models import gguf, pth, st
from pytest_rwkvperf.models.files import Format, ModelFile, Precision
from pytest_rwkvperf.models.hashing import content_hash

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.models.shapes import Shape
    from pytest_rwkvperf.models.streams import Progress
    from pytest_rwkvperf.models.weights import Weights


def precision_in(format: Format, weights: Weights) -> Precision:  # noqa: A002 - the word everywhere
    """The precision a format is written in: a `.pth` keeps its source's, the engines read the others as float16."""
    return weights.precision if format == "pth" else "f16"


def size_in(format: Format, shape: Shape, precision: Precision) -> int:  # noqa: A002
    """Bytes a written file will have, rounded up a little."""
    if format == "pth":
        return pth.size(shape, precision)
    return st.size(shape) if format == "st" else gguf.size(shape)


def write(weights: Weights, target: Path, format: Format, name: str, progress: Progress) -> None:  # noqa: A002
    """Write weights in a format, streamed. `name` labels the model in progress and in `.gguf` metadata.

    Raises:
        ModelError: a value or the vocabulary does not fit the format.
    """
    precision = precision_in(format, weights)
    sentence = f"writing {name} as .{format} ({size_in(format, weights.shape, precision) / 1e9:.2f} GB)"
    if format == "pth":
        pth.write(target, weights, precision, progress, sentence)
    elif format == "st":
        st.write(target, weights, progress, sentence)
    else:
        gguf.write(target, weights, name, progress, sentence)


def inspect_pth(path: Path, progress: Progress) -> ModelFile:
    """Describe a `.pth` file. Runs in the worker: it unpickles with torch's `weights_only` loader.

    Raises:
        ModelError: damaged, hostile or not RWKV-7; names the file and the reason.
    """
    weights = pth.read(path)
    digest = content_hash(weights, progress, f"hashing {path.name}")
    return ModelFile(path, "pth", digest, weights.shape, weights.precision)


def convert_pth(source: Path, target: Path, format: Format, progress: Progress) -> None:  # noqa: A002
    """Write a `.pth` file's weights in another format. Runs in the worker.

    Raises:
        ModelError: as `inspect_pth` and `write`.
    """
    write(pth.read(source), target, format, source.stem, progress)
