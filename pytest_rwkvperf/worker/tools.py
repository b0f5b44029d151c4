"""Work on model files that needs an engine or unpickles, in short-lived worker processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.models.checked_weights import Written
from pytest_rwkvperf.models.model import ModelFile
from pytest_rwkvperf.worker.parent import LOAD_SECONDS, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.model import Precision


class WorkerTools:
    """Implements `models.model_store.Tools`: the parent neither unpickles nor loads a native library."""

    def __init__(self, progress: Callable[[str, float], None]) -> None:
        self._progress = progress

    def inspect_pth(self, path: Path) -> ModelFile:
        """Shape, precision and content hash of a `.pth`."""
        return ModelFile.from_json(self._ask("inspect_pth", path=str(path)))

    def convert_pth(
        self,
        source: Path,
        target: Path,
        format: Format,
        precision: Precision | None = None,
    ) -> Written:
        """Write another format from a `.pth`; returns how the weights were changed (rounded, replaced)."""
        answer = self._ask("convert_pth", source=str(source), target=str(target), format=format, precision=precision)
        return Written(**{**answer, "placeholders": tuple(answer["placeholders"])})

    def quantize_gguf(self, source: Path, target: Path, quant: str) -> None:
        """Make a quantized `.gguf` with llama.cpp's own quantizer."""
        self._ask("quantize", source=str(source), target=str(target), quant=quant)

    def solve(self, file: ModelFile, emulation: str, seed: int, targets: Mapping[int, Path]) -> None:
        """Write the oracle's logits for a file, after each number of tokens of a seed's prompt."""
        self._progress(f"computing the oracle's logits for {file.path.name}", 0.0)
        self._ask(
            "solve",
            path=str(file.path),
            format=file.format,
            emulation=emulation,
            seed=seed,
            targets={str(count): str(target) for count, target in targets.items()},
        )

    def _ask(self, do: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        with Worker() as worker:
            return worker.request(do, LOAD_SECONDS, self._progress, **arguments)
