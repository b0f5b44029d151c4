"""From a model reference (`--rwkv-model=`) to the file that a backend reads.

`ModelStore.resolve` turns a reference into a `Model`, and `ModelStore.file_for` gives the model's file in a format and
quant: the user's own file where it fits, otherwise one that is derived from it and cached. Below the cache's root are

* `known/*.json`: what is known of each user file (shape, quant, content hash) and each synthetic model;
* `HASH/rwkv7-LAYERSxWIDTH-QUANT.FORMAT`: derived files, each with a `.json` record beside it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.models import cache, derive, hub, synthetic
from pytest_rwkvperf.models.file_format import SUFFIXES, detect_format, read_header
from pytest_rwkvperf.models.hashing import content_hash, stored_hash
from pytest_rwkvperf.models.header import MappedHeader
from pytest_rwkvperf.models.model import PRECISIONS, Model, ModelFile, Precision, errors_naming
from pytest_rwkvperf.models.shapes import SHAPES
from pytest_rwkvperf.models.synthetic import SyntheticModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.checked_weights import Written
    from pytest_rwkvperf.models.header import Header
    from pytest_rwkvperf.models.streams import Progress
    from pytest_rwkvperf.models.weights import MappedWeights

_LAYOUT_VERSION = 1
"""Part of every cached record: raise it when a writer changes what it writes."""


class Tools(Protocol):
    """What only an engine can do; each call runs in a worker process."""

    def inspect_pth(self, path: Path) -> ModelFile:
        """Load a `.pth` with torch and describe it (`derive.inspect_pth`)."""

    def convert_pth(
        self,
        source: Path,
        target: Path,
        format: Format,
        precision: Precision | None = None,
    ) -> Written:
        """Load a `.pth` with torch and write another format (`derive.convert_pth`)."""

    def quantize_gguf(self, source: Path, target: Path, quant: str) -> None:
        """Quantize an F16 `.gguf` with llama.cpp's own quantizer."""


class ModelStore:
    """Resolves model references and derives model files.

    Args:
        tools: for `.pth` files, which are only unpickled in a worker, and for quantizing.
        progress: called while anything takes long.
        root: folder of the cache; default: `models` in the user's cache folder.
    """

    def __init__(self, tools: Tools, progress: Progress, root: Path | None = None) -> None:
        self._tools = tools
        self._progress = progress
        self._root = cache.folder(root)
        self._headers: dict[ModelFile, Header] = {}

    def resolve(self, reference: str) -> Model:
        """The model that a reference names: a file in any format, here or on a hub, or `synthetic:SHAPE[:SEED]`.

        Raises:
            ModelError: unknown reference, or a file that is missing, damaged or not RWKV-7.
        """
        source = self.locate(reference)
        if isinstance(source, SyntheticModel):
            return self._resolve_synthetic(source)
        file = self._describe(source)
        return Model(printable(source.stem), file.content_hash, file.shape, file)

    def locate(self, reference: str) -> SyntheticModel | Path:
        """What a reference names, without reading it: synthetic weights, or a file, fetched if it is on a hub.

        Raises:
            ModelError: unknown reference, or the hub does not give the file.
        """
        if reference.startswith(synthetic.PREFIX):
            return synthetic.parse(reference)
        with _path_errors(reference):
            path = Path(reference).expanduser()
            exists = path.exists()
        if not exists and (hub_file := hub.parse(reference)):
            return hub.fetch(hub_file, self._root, self._progress)
        if not exists and not path.suffix:
            raise ModelError(
                f"unknown model {reference!r}: name a .pth, .st or .gguf file,"
                f" synthetic:SHAPE with SHAPE one of {', '.join(SHAPES)},"
                f" hf:OWNER/REPO/FILE, ms:OWNER/REPO/FILE, or {next(iter(hub.SHORT_NAMES))}"
            )
        with _path_errors(reference):
            resolved = path.resolve()
        # A hub's client keeps files under their hashes, and rwkv loads only files that are called .pth.
        return resolved if resolved.suffix.lower() in SUFFIXES else path.absolute()

    def header(self, file: ModelFile) -> Header:
        """The file's header; each file's is read once.

        Raises:
            ModelError: the file has been damaged since it was resolved.
        """
        if file not in self._headers:
            self._headers[file] = read_header(file.path)
        return self._headers[file]

    def file_for(self, model: Model, format: Format, quant: str | None = None) -> ModelFile:
        """The file of a model that a backend reads: the user's own where it fits, otherwise derived and cached.

        Args:
            model: from `resolve`.
            format: what the backend reads.
            quant: for `gguf` only: `f16` (default) or a llama.cpp quant such as `q4_k_m`.

        Raises:
            ModelError: the model is not available in this format or quant, or the disk is full.
        """
        wanted = _wanted_quant(model, format, quant)
        own = model.source if isinstance(model.source, ModelFile) else None
        if own is not None and own.format == format and wanted == own.quant:
            return own
        if own is not None and own.quantized:
            raise ModelError(
                f"{str(own.path)!r} is quantized as {own.quant} and serves {own.quant} alone, not"
                f" {wanted if format == 'gguf' else '.' + format}; give the model's .pth, .st or F16 .gguf file"
            )
        if wanted in PRECISIONS:
            return self._convert(model, format, wanted)
        base = own if own is not None and own.format == "gguf" else self.file_for(model, "gguf")
        return self._quantize(model, base, wanted)

    def _resolve_synthetic(self, source: SyntheticModel) -> Model:
        name = f"{synthetic.PREFIX}{source.label}"
        file_name = f"synthetic-{source.label.replace(':', '-')}-v{synthetic.GENERATOR_VERSION}.json"
        record = self._known(
            file_name,
            {"shape": repr(source.shape)},
            lambda: {"content_hash": content_hash(source, self._progress, f"hashing {name}")},
        )
        return Model(name, record["content_hash"], source.shape, source)

    def _describe(self, path: Path) -> ModelFile:
        """Describe a user's file. Its first bytes are checked each time; it is hashed once per state of the file."""
        detect_format(path)
        status = path.stat()
        key = {
            "path": str(path),
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "inode": status.st_ino,
            "layout": _LAYOUT_VERSION,
        }
        file_name = f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:24]}.json"
        record = self._known(file_name, key, lambda: {"file": self._inspect(path).to_json()})
        return ModelFile.from_json(record["file"])

    def _known(self, file_name: str, key: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A record of the cache; made again, by one process at a time, when its key differs."""
        path = self._root / "known" / file_name
        if record := _matching(path, key):
            return record
        with cache.locked(path, self._progress):
            if record := _matching(path, key):
                return record
            record = {**key, **make()}
            cache.write_json(path, record)
            return record

    def _inspect(self, path: Path) -> ModelFile:
        header = read_header(path)
        if isinstance(header, MappedHeader):
            file = ModelFile(path, header.format, self._content_hash(header), header.shape, header.quant)
        else:
            self._progress(f"reading {path.name}", 0.0)
            file = self._tools.inspect_pth(path)
        self._headers[file] = header
        return file

    def _content_hash(self, header: MappedHeader) -> str:
        sentence = f"hashing {header.path.name}"
        with errors_naming(header.path):
            if header.quantized:
                return stored_hash(header.stored(), self._progress, sentence)
            return content_hash(header.weights(), self._progress, sentence)

    def _quantize(self, model: Model, base: ModelFile, quant: str) -> ModelFile:
        def make(temporary: Path) -> None:
            self._progress(f"quantizing {model.name} to {quant}", 0.0)
            self._tools.quantize_gguf(base.path, temporary, quant)

        return self._cached(_Derived(model, "gguf", quant, self._root), base.size_bytes, make)

    def _convert(self, model: Model, format: Format, quant: Precision) -> ModelFile:
        source = model.source
        # A .pth keeps each tensor's own precision; in the other formats `quant` is the precision of the matrices.
        precision = None if format == "pth" else quant

        def make(temporary: Path) -> None:
            if isinstance(source, ModelFile) and source.format == "pth":
                self._progress(f"converting {source.path.name} to .{format}", 0.0)
                written = self._tools.convert_pth(source.path, temporary, format, precision)
            else:
                weights = source if isinstance(source, SyntheticModel) else self._mapped(source)
                name = model.name.replace(":", " ")
                written = derive.write(weights, temporary, format, name, self._progress, precision)
            if written.rounded:
                self._progress(f"{model.name} as .{format}: {written.sentence}", 1.0)

        needed = derive.size_in(format, model.shape, quant)
        return self._cached(_Derived(model, format, quant, self._root), needed, make)

    def _mapped(self, file: ModelFile) -> MappedWeights:
        header = self.header(file)
        assert isinstance(header, MappedHeader)  # noqa: S101 - the tools convert a .pth
        return header.weights()

    def _cached(self, derived: _Derived, needed: int, make: Callable[[Path], None]) -> ModelFile:
        """The derived file; if missing or incomplete, it is made under a lock and takes `needed` bytes of disk."""
        path = derived.path
        with cache.locked(path, self._progress):
            if file := derived.recorded():
                return file
            with cache.replacing(path, needed) as temporary:
                make(temporary)
                header = dataclasses.replace(derived.checked(temporary), path=path)
            digest = derived.model.content_hash
            if isinstance(header, MappedHeader) and not derived.has_models_hash:
                digest = self._content_hash(header)
            file = ModelFile(path, derived.format, digest, derived.model.shape, derived.quant)
            self._headers[file] = header
            cache.write_json(derived.record_path, {**derived.key(), "file": file.to_json()})
            return file


@contextmanager
def _path_errors(reference: str) -> Iterator[None]:
    """Turn path errors (unknown user, no permission, symlink loop, name too long) into a ModelError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"model {reference!r} is not a usable path: {error}; name an existing file") from None


def _matching(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    record = cache.read_json(path)
    if record is None or any(record.get(field) != value for field, value in key.items()):
        return None
    return record


def _wanted_quant(model: Model, format: Format, quant: str | None) -> str:
    """The quant that the file must have. A `.pth` may have any precision; a `.st` must be float16."""
    if quant is not None and format != "gguf":
        raise ModelError(f"quant {quant!r} was asked of a .{format} file; only .gguf files are stored quantized")
    if quant is not None:
        if not re.fullmatch(r"[a-z0-9_]{1,32}", quant.lower()):
            raise ModelError(
                f"{quant!r} is not the name of a .gguf quant; llama.cpp has f16, q8_0, q5_k_m, q4_k_m, q4_0 …"
            )
        return quant.lower()
    own = model.source
    if isinstance(own, ModelFile) and own.format == format and format != "st":
        return own.quant
    if format == "pth":
        return own.quant if isinstance(own, ModelFile) else own.precision
    return "f16"


@dataclass(frozen=True, slots=True)
class _Derived:
    """A derived file: of which model, in which format and quant, below which cache root."""

    model: Model
    format: Format
    quant: str
    root: Path

    @property
    def path(self) -> Path:
        shape, folder = self.model.shape, self.root / self.model.content_hash[:16]
        return folder / f"rwkv7-{shape.layers}x{shape.width}-{self.quant}.{self.format}"

    @property
    def record_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def has_models_hash(self) -> bool:
        """Whether the file is known to hold the model's exact values, so that its hash need not be computed."""
        return isinstance(self.model.source, SyntheticModel) and self.quant in PRECISIONS

    def key(self) -> dict[str, Any]:
        return {"layout": _LAYOUT_VERSION, "model": self.model.content_hash, "size": self.path.stat().st_size}

    def recorded(self) -> ModelFile | None:
        """The file as its record describes it; None when either is missing or the size differs."""
        record = _matching(self.record_path, self.key()) if self.path.exists() else None
        return None if record is None else dataclasses.replace(ModelFile.from_json(record["file"]), path=self.path)

    def checked(self, path: Path) -> Header:
        """The header of the file just written at `path`, if it is what was asked for."""
        header = read_header(path)
        # A .pth keeps each tensor's own precision, so its quant need not be that of the source's matrices.
        if header.shape != self.model.shape or (header.quant != self.quant and self.format != "pth"):
            raise ModelError(
                f"{self.model.name} was to become {self.quant} of {self.model.shape},"
                f" but the file written is {header.quant} of {header.shape}"
            )
        return header
