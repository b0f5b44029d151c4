"""A model to measure, whatever it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_rwkvperf.models.files import ModelFile
    from pytest_rwkvperf.models.shapes import Shape
    from pytest_rwkvperf.models.synthetic import SyntheticModel


@dataclass(frozen=True, slots=True)
class Model:
    """A model to measure: its label in reports and case keys, and where its files come from."""

    name: str
    content_hash: str
    shape: Shape
    source: ModelFile | SyntheticModel
