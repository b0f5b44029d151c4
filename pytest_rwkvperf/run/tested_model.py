"""The model under test: the user's reference, the file that it names, and the files made from it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cases import FORMATS
from pytest_rwkvperf.models import derive, synthetic
from pytest_rwkvperf.models.model import ModelFile
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.models.weights import DTYPES
from pytest_rwkvperf.run.selection import ModelLimits
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.core.engine import Backend
    from pytest_rwkvperf.models.header import Header
    from pytest_rwkvperf.models.model import Model
    from pytest_rwkvperf.models.shapes import Shape
    from pytest_rwkvperf.run.progress import Progress

_WAITS = ("fetching ", "waiting for ")
"""How sentences begin about a download (`models/hub.py`) or another process's work (`models/cache.py`)."""


class TestedModel:
    """The model that `--rwkv-model` names. Nothing is read, fetched or made before it is needed."""

    __test__ = False  # pytest would collect a class of this name

    def __init__(self, reference: str, progress: Progress) -> None:
        self._reference = reference
        self._show = progress
        self._wait = ""
        """The download or other wait whose beginning was shown."""
        self.tools = WorkerTools(self._progress)
        self._store = ModelStore(self.tools, self._progress)

    @cached_property
    def model(self) -> Model:
        """What the reference names.

        Raises:
            ModelError: the reference or the file cannot be used.
        """
        return self._store.resolve(self._reference)

    @cached_property
    def shape(self) -> Shape:
        """Its dimensions. A synthetic model is not generated to answer this.

        Raises:
            ModelError: the reference or the file cannot be used.
        """
        if self._reference.startswith(synthetic.PREFIX):
            return synthetic.parse(self._reference).shape
        return self.model.shape

    @cached_property
    def limits(self) -> ModelLimits:
        """The formats and quants that it can be converted to. A synthetic model is not generated to answer this.

        Raises:
            ModelError: the reference or the file cannot be used.
        """
        if self._reference.startswith(synthetic.PREFIX):
            label = synthetic.parse(self._reference).label
            return ModelLimits(f"{synthetic.PREFIX}{label}", frozenset(FORMATS))
        source = self.model.source
        assert isinstance(source, ModelFile)  # noqa: S101 - only a synthetic reference has no file
        # No other format can be made from a quantized .gguf: the original values are gone.
        if source.format == "gguf" and source.quant not in DTYPES:
            return ModelLimits(self.model.name, frozenset({"gguf"}), source.quant)
        # A .gguf of the user's brings its own vocabulary.
        wanted = [each for each in FORMATS if (each, source.format) != ("gguf", "gguf")]
        lacking: dict[str, str] = {each: why for each in wanted if (why := derive.obstacle(each, source.shape))}
        return ModelLimits(self.model.name, frozenset(FORMATS) - lacking.keys(), reasons=lacking)

    def file(self, format: Format, quant: str | None = None) -> ModelFile:
        """The model in a format, made and cached when it is not there; by default unquantized or the user's own.

        Raises:
            ModelError: it cannot be converted to this format.
        """
        if quant is None and format == "gguf":
            quant = self.limits.quant or "f16"
        return self._store.file_for(self.model, format, quant)

    def file_of(self, backend: Backend, quant: str) -> ModelFile:
        """The file that a backend reads when it measures a quant.

        Raises:
            ModelError: it cannot be made.
        """
        return self._store.file_for(self.model, backend.format, backend.file_quant(quant))

    def header(self, file: ModelFile) -> Header:
        """The header of one of the model's files.

        Raises:
            ModelError: the file has been damaged since it was made.
        """
        return self._store.header(file)

    def _progress(self, sentence: str, fraction: float) -> None:
        if sentence.startswith(_WAITS) and sentence != self._wait:
            self._wait = sentence
            self._show.line(sentence)
        self._show(f"{sentence} {fraction:.0%}")
