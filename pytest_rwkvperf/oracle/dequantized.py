"""The weights that an engine really computes with, as the oracle reads them: quantized ones are dequantized."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.models import gguf, pth, st
from pytest_rwkvperf.models.layouts import canonical_tensors, gguf_layout, gguf_name
from pytest_rwkvperf.models.weights import MappedWeights, cast

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.gguf import GgufFile
    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.shapes import TensorSpec
    from pytest_rwkvperf.models.weights import Array, Weights


def read(path: Path, format: Format) -> Weights:  # noqa: A002 - the design's word
    """A model file's values. A `.pth` is unpickled: call this in a worker.

    Raises:
        ModelError: the file cannot be used.
    """
    if format == "gguf":
        file = gguf.read(path)
        return DequantizedWeights(file) if file.quantized else file.weights()
    return st.read(path) if format == "st" else pth.read(path)


class DequantizedWeights:
    """A quantized `.gguf` a block of rows at a time, by the gguf package's reference dequantization."""

    def __init__(self, file: GgufFile) -> None:
        self.shape = file.shape
        self.precision: Precision = "f32"
        plain: dict[str, Array] = {}
        self._packed: dict[str, tuple[Any, Array]] = {}
        import gguf as library

        for name, kind, shape, data in file.stored():
            if kind in gguf.PLAIN_TYPES:
                plain[name] = gguf.as_array(kind, shape, data)
            else:
                self._packed[name] = (library.GGMLQuantizationType[kind], data.reshape(shape[0], -1))
        layout = tuple(entry for entry in gguf_layout(file.shape) if entry.name in plain)
        self._plain = MappedWeights(file.shape, "f32", canonical_tensors(layout, plain))

    def rows(self, spec: TensorSpec, start: int, stop: int, precision: Precision | None = None) -> Array:
        """See `Weights.rows`. Quantized tensors are whole matrices, whose orientation every format shares."""
        packed = self._packed.get(gguf_name(spec.name))
        if packed is None:
            return self._plain.rows(spec, start, stop, precision)
        from gguf.quants import dequantize

        kind, data = packed
        values: Array = dequantize(data[start:stop], kind).reshape(stop - start, spec.row_size)
        return values if precision is None else cast(values, precision, spec.name)
