"""A model to measure (`Model`), one file of it (`ModelFile`), and the error context that readers of files share.

Standard library only: workers import this in environments that have nothing else.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models.shapes import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.synthetic import SyntheticModel

Precision = Literal["bf16", "f16", "f32"]
"""The unquantized number formats a tensor can be stored in."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Put the file's path in front of the message of every ModelError raised in the block."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"cannot use {str(path)!r}: {error}") from None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file in one of the formats that engines read.

    `quant` is the precision of the matrices: `bf16`, `f16`, `f32`, or a llama.cpp quant name such as `q4_k_m`.
    `content_hash` is computed from the tensors, not from the file's bytes (see `hashing`).
    """

    path: Path
    format: Format
    content_hash: str
    shape: Shape
    quant: str

    @property
    def quantized(self) -> bool:
        """Whether the tensors are in a block format, from which no other file can be made."""
        return self.quant not in PRECISIONS

    @property
    def size_bytes(self) -> int:
        """The file's size on disk, in bytes."""
        return self.path.stat().st_size

    def to_json(self) -> dict[str, Any]:
        """A record for JSON: the cache and the worker's pipe."""
        return {**asdict(self), "path": str(self.path)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ModelFile:
        """Rebuild from `to_json`.

        Raises:
            KeyError, TypeError: `to_json` did not make this record.
        """
        return cls(
            Path(record["path"]), record["format"], record["content_hash"], Shape(**record["shape"]), record["quant"]
        )


@dataclass(frozen=True, slots=True)
class Model:
    """A model to measure: its name in reports and case keys, and where its files come from."""

    name: str
    content_hash: str
    shape: Shape
    source: ModelFile | SyntheticModel
