"""A model file's weights as the oracle reads them: quantized tensors are dequantized."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.models import gguf_header, pth, st
from pytest_rwkvperf.models.layouts import canonical_tensors, gguf_name
from pytest_rwkvperf.models.model import PRECISIONS
from pytest_rwkvperf.models.weights import MappedWeights, cast

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.header import MappedHeader
    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.shapes import TensorSpec
    from pytest_rwkvperf.models.weights import Array, Weights


def read(path: Path, format: Format) -> Weights:
    """A model file's values. A `.pth` is unpickled: call this in a worker.

    Raises:
        ModelError: the file cannot be used.
    """
    if format == "pth":
        return pth.read(path)
    header = st.read_header(path) if format == "st" else gguf_header.read_header(path)
    return DequantizedWeights(header) if header.quantized else header.weights()


class DequantizedWeights:
    """A quantized `.gguf`, dequantized a block of rows at a time by the gguf package's reference implementation."""

    def __init__(self, header: MappedHeader) -> None:
        self.shape = header.shape
        self.precision: Precision = "f32"
        plain: dict[str, Array] = {}
        self._packed: dict[str, tuple[Any, Array]] = {}
        from gguf import GGMLQuantizationType

        for tensor, data in header.stored():
            if tensor.kind in PRECISIONS:
                plain[tensor.name] = tensor.array(data)
            else:
                packed = data.reshape(tensor.shape[0], -1)
                self._packed[tensor.name] = (GGMLQuantizationType[tensor.kind.upper()], packed)
        layout = tuple(entry for entry in header.layout if entry.name in plain)
        self._plain = MappedWeights(header.shape, "f32", canonical_tensors(layout, plain))

    def rows(self, spec: TensorSpec, start: int, stop: int, precision: Precision | None = None) -> Array:
        """See `Weights.rows`. Quantized tensors are matrices that every format stores in the same orientation."""
        packed = self._packed.get(gguf_name(spec.name))
        if packed is None:
            return self._plain.rows(spec, start, stop, precision)
        from gguf.quants import dequantize

        kind, data = packed
        values: Array = dequantize(data[start:stop], kind).reshape(stop - start, spec.row_size)
        return values if precision is None else cast(values, precision, spec.name)
