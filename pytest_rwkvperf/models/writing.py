"""The part of writing that the formats share: stored tensors as a stream of bytes, in order, computed ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.models.streams import in_order
from pytest_rwkvperf.models.weights import Array, Weights, bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_rwkvperf.models.convert import Stored


def stored_blocks(layout: tuple[Stored, ...], weights: Weights) -> Iterator[tuple[Stored, memoryview]]:
    """Each stored tensor's bytes in blocks of bounded size, with the tensor they belong to."""
    pieces = [(entry, task) for entry in layout for task in entry.tasks(weights)]
    data = in_order(_bytes_of(task) for _, task in pieces)
    for (entry, _), block in zip(pieces, data, strict=True):
        yield entry, block


def _bytes_of(task: Callable[[], Array]) -> Callable[[], memoryview]:
    return lambda: bytes_of(task())
