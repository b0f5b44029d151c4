"""Weights on their way into a file: NaN and infinity are refused, and values that rounding changes are counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.models.weights import Array, Weights, check_finite, converted

if TYPE_CHECKING:
    from pytest_rwkvperf.models.layouts import Stored
    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.shapes import TensorSpec


@dataclass(frozen=True, slots=True)
class Written:
    """What writing did to a model: of `values` values, `rounded` changed, in `tensors` tensors.

    `placeholders` are tensors that the format requires and the model does not have.
    """

    values: int
    rounded: int = 0
    tensors: int = 0
    placeholders: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The same in words."""
        exact = f"all {self.values:,} values are exact"
        changed = f"{self.rounded:,} of {self.values:,} values, in {self.tensors} tensors, were rounded to nearest even"
        text = changed if self.rounded else exact
        if self.placeholders:
            text += f"; placeholders that the format requires and no engine reads: {', '.join(self.placeholders)}"
        return text


class CheckedWeights:
    """Weights that refuse NaN and infinity when they are read, and count the values that rounding changes."""

    def __init__(self, weights: Weights) -> None:
        self.shape = weights.shape
        self.precision = weights.precision
        self._weights = weights
        # Counted by tensor and row, because a placeholder reads its original's rows a second time.
        self._rounded: dict[tuple[str, int], int] = {}

    def rows(self, spec: TensorSpec, start: int, stop: int, precision: Precision | None = None) -> Array:
        """See `weights.Weights.rows`.

        Raises:
            ModelError: NaN, infinity, or an overflow.
        """
        held = self._weights.rows(spec, start, stop)
        check_finite(held, spec.name)
        if precision is None:
            return held
        values, self._rounded[spec.name, start] = converted(held, precision, spec.name)
        return values

    def written(self, layout: tuple[Stored, ...]) -> Written:
        """What writing this layout did to the values."""
        changed = {name: 0 for name, _ in self._rounded}
        for (name, _), count in self._rounded.items():
            changed[name] += count
        return written(layout, sum(changed.values()), sum(count > 0 for count in changed.values()))


def written(layout: tuple[Stored, ...], rounded: int = 0, tensors: int = 0) -> Written:
    """The account of a written layout."""
    values = sum(spec.size for entry in layout if not entry.placeholder for spec in entry.parts)
    return Written(values, rounded, tensors, tuple(entry.name for entry in layout if entry.placeholder))
