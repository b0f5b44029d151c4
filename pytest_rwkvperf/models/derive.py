"""Writes a model in another format. `inspect_pth` and `convert_pth` unpickle and therefore run in a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import gguf, pth, st
from pytest_rwkvperf.models.checked_weights import CheckedWeights, Written, written
from pytest_rwkvperf.models.hashing import content_hash
from pytest_rwkvperf.models.layouts import gguf_layout, pth_layout, pth_layout_of, st_layout
from pytest_rwkvperf.models.model import ModelFile, Precision, errors_naming
from pytest_rwkvperf.models.synthetic import SyntheticModel

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.shapes import Shape
    from pytest_rwkvperf.models.streams import Progress
    from pytest_rwkvperf.models.weights import Weights


def obstacle(format: Format, shape: Shape) -> str:
    """Why no model of this shape can be had in a format that its engine loads; empty where one can."""
    if format == "gguf":
        return gguf.vocabulary_problem(shape.vocabulary)
    if format == "st" and shape.layers == 1:
        return "web-rwkv reads the value rank from the second layer, and this model has one"
    return ""


def precision_in(format: Format, weights: Weights) -> Precision:
    """The default precision of matrices: a `.pth` keeps its source's; engines read the other formats as float16."""
    return weights.precision if format == "pth" else "f16"


def size_in(format: Format, shape: Shape, precision: Precision) -> int:
    """Size of a written file in bytes, rounded up a little."""
    if format == "pth":
        return pth.size(shape, precision)
    return st.size(shape) if format == "st" else gguf.size(shape, precision)


def write(
    weights: Weights,
    target: Path,
    format: Format,
    name: str,
    progress: Progress,
    precision: Precision | None = None,
) -> Written:
    """Write weights in a format, streamed; returns what that changed in the values.

    Args:
        weights: what to write.
        target: the file; an existing one is overwritten.
        format: the file's format.
        name: labels the model in progress reports and in `.gguf` metadata.
        progress: called now and then.
        precision: of the matrices; default: each tensor's own in a `.pth`, else float16.

    Raises:
        ModelError: a value or the vocabulary does not fit the format, or the weights hold NaN or infinity.
    """
    kind = precision or precision_in(format, weights)
    sentence = f"writing {name} as .{format} ({size_in(format, weights.shape, kind) / 1e9:.2f} GB)"
    # Synthetic weights are finite and exact in every precision, so there is nothing to check.
    source = weights if isinstance(weights, SyntheticModel) else CheckedWeights(weights)
    if format == "pth":
        layout = pth_layout(source.shape, precision) if precision else pth_layout_of(weights)
        pth.write(target, source, layout, progress, sentence)
    elif format == "st":
        if kind != "f16":
            raise ModelError(f"a .st file in {kind} was asked for; web-rwkv, which reads them, reads f16 only")
        layout = st_layout(source.shape)
        st.write(target, source, progress, sentence)
    else:
        layout = gguf_layout(source.shape, kind)
        gguf.write(target, source, name, progress, sentence, kind)
    return source.written(layout) if isinstance(source, CheckedWeights) else written(layout)


def inspect_pth(path: Path, progress: Progress) -> ModelFile:
    """Describe a `.pth` file. Runs in the worker: it unpickles with torch's `weights_only` loader.

    Raises:
        ModelError: damaged, hostile or not RWKV-7; names the file and the reason.
    """
    weights = pth.read(path)
    with errors_naming(path):
        digest = content_hash(weights, progress, f"hashing {path.name}")
    return ModelFile(path, "pth", digest, weights.shape, weights.precision)


def convert_pth(
    source: Path,
    target: Path,
    format: Format,
    progress: Progress,
    precision: Precision | None = None,
) -> Written:
    """Write a `.pth` file's weights in another format. Runs in the worker.

    Raises:
        ModelError: as `inspect_pth` and `write`.
    """
    weights = pth.read(source)
    with errors_naming(source):
        return write(weights, target, format, source.stem, progress, precision)
