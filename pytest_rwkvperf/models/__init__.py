"""Models to measure: public shapes with synthetic weights, files in three formats, and the cache between them."""

from __future__ import annotations

from pytest_rwkvperf.models.files import FORMATS, Format, Model, ModelFile
from pytest_rwkvperf.models.resolve import Tools, file_for, resolve
from pytest_rwkvperf.models.shapes import SHAPES, Shape
from pytest_rwkvperf.models.streams import Progress

__all__ = ["FORMATS", "SHAPES", "Format", "Model", "ModelFile", "Progress", "Shape", "Tools", "file_for", "resolve"]
