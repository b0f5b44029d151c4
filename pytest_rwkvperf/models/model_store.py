"""From what the user wrote after `--rwkv-model=` to the file that a backend reads."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.models import cache as store
from pytest_rwkvperf.models import derive, gguf, hub, pth, st, synthetic
from pytest_rwkvperf.models.file_format import SUFFIXES, detect_format
from pytest_rwkvperf.models.hashing import content_hash, stored_hash
from pytest_rwkvperf.models.model import Model, ModelFile, Precision, errors_naming
from pytest_rwkvperf.models.shapes import SHAPES, Shape
from pytest_rwkvperf.models.synthetic import SyntheticModel
from pytest_rwkvperf.models.weights import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.checked_weights import Written
    from pytest_rwkvperf.models.streams import Progress

_LAYOUT_VERSION = 1
"""Part of every derived file's record: raise it when a writer changes what it writes."""


class Tools(Protocol):
    """What only an engine can do; each call runs in a worker process."""

    def inspect_pth(self, path: Path) -> ModelFile:
        """Load a `.pth` with torch and describe it (`derive.inspect_pth`)."""

    def convert_pth(
        self,
        source: Path,
        target: Path,
        format: Format,  # noqa: A002 - the word everywhere
        precision: Precision | None = None,
    ) -> Written:
        """Load a `.pth` with torch and write another format (`derive.convert_pth`)."""

    def quantize_gguf(self, source: Path, target: Path, quant: str) -> None:
        """Quantize an F16 `.gguf` with llama.cpp's own quantizer."""


def resolve(reference: str, *, tools: Tools, progress: Progress, cache: Path | None = None) -> Model:
    """The model that a reference names: a file in any format, here or on a hub, or `synthetic:SHAPE[:SEED]`.

    Args:
        reference: what the user wrote.
        tools: for `.pth` files, which are only unpickled in a worker.
        progress: told about anything that takes long.
        cache: folder for hashes and derived files; default the user's cache folder.

    Raises:
        ModelError: unknown reference, or a file that is missing, damaged or not RWKV-7.
    """
    root = store.folder(cache)
    source = locate(reference, progress, cache)
    if isinstance(source, SyntheticModel):
        return _resolve_synthetic(source, root, progress)
    file = _describe(source, root, tools, progress)
    return Model(printable(source.stem), file.content_hash, file.shape, file)


def locate(reference: str, progress: Progress, cache: Path | None = None) -> SyntheticModel | Path:
    """What a reference names, not yet read: synthetic weights, or a file, fetched from a hub if it is there.

    Raises:
        ModelError: unknown reference, or the hub does not give the file.
    """
    if reference.startswith(synthetic.PREFIX):
        return synthetic.parse(reference)
    with _looking_for(reference):
        path = Path(reference).expanduser()
        there = path.exists()
    if not there and (wanted := hub.parse(reference)):
        return hub.fetch(wanted, store.folder(cache), progress)
    if not there and not path.suffix:
        raise ModelError(
            f"unknown model {reference!r}: name a .pth, .st or .gguf file,"
            f" synthetic:SHAPE with SHAPE one of {', '.join(SHAPES)},"
            f" hf:OWNER/REPO/FILE, ms:OWNER/REPO/FILE, or {next(iter(hub.SHORT_NAMES))}"
        )
    with _looking_for(reference):
        found = path.resolve()
    # A hub's client keeps files under their hashes, and rwkv loads none that is not called .pth.
    return found if found.suffix.lower() in SUFFIXES else path.absolute()


@contextmanager
def _looking_for(reference: str) -> Iterator[None]:
    """Say what the system has against a path: nobody's home, too long, not to be looked into, links in a loop."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"model {reference!r} cannot be looked for: {error}; name a file that can be") from None


def _resolve_synthetic(source: SyntheticModel, root: Path, progress: Progress) -> Model:
    name = f"{synthetic.PREFIX}{source.label}"
    note = root / "known" / f"synthetic-{source.label.replace(':', '-')}-v{synthetic.GENERATOR_VERSION}.json"
    record = _remembered(
        note,
        {"shape": repr(source.shape)},
        lambda: {"content_hash": content_hash(source, progress, f"hashing {name}")},
        progress,
    )
    return Model(name, record["content_hash"], source.shape, source)


def _remembered(
    note: Path, key: dict[str, Any], make: Callable[[], dict[str, Any]], progress: Progress
) -> dict[str, Any]:
    """A record kept under a key; made again, by one process at a time, when the key differs."""
    if record := _matching(note, key):
        return record
    with store.locked(note, progress):
        if record := _matching(note, key):
            return record
        record = {**key, **make()}
        store.write_json(note, record)
        return record


def _matching(note: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    record = store.read_json(note)
    if record is None or any(record.get(field) != value for field, value in key.items()):
        return None
    return record


def _describe(path: Path, root: Path, tools: Tools, progress: Progress) -> ModelFile:
    """A user's file: checked each time, hashed once per path, size, time and inode."""
    kind = detect_format(path)
    status = path.stat()
    key = {
        "path": str(path),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "inode": status.st_ino,
        "layout": _LAYOUT_VERSION,
    }
    note = root / "known" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:24]}.json"
    record = _remembered(note, key, lambda: {"file": _inspect(path, kind, tools, progress).to_json()}, progress)
    return ModelFile.from_json(record["file"])


def _inspect(path: Path, kind: Format, tools: Tools, progress: Progress) -> ModelFile:
    if kind == "pth":
        pth.check_directory(path)
        progress(f"reading {path.name}", 0.0)
        return tools.inspect_pth(path)
    digest = _hash_of(path, kind, progress)
    if kind == "st":
        weights = st.read(path)
        return ModelFile(path, kind, digest, weights.shape, weights.precision)
    file = gguf.read(path)
    return ModelFile(path, kind, digest, file.shape, file.quant)


def _hash_of(path: Path, kind: Literal["st", "gguf"], progress: Progress) -> str:
    """The content hash of a file that needs no unpickling."""
    sentence = f"hashing {path.name}"
    if kind == "gguf" and (file := gguf.read(path)).quantized:
        with errors_naming(path):
            return stored_hash(file.stored(), progress, sentence)
    weights = derive.read(path, kind)
    with errors_naming(path):
        return content_hash(weights, progress, sentence)


def file_for(
    model: Model,
    format: Format,  # noqa: A002 - the word everywhere
    quant: str | None = None,
    *,
    tools: Tools,
    progress: Progress,
    cache: Path | None = None,
) -> ModelFile:
    """The file of a model that a backend reads: the user's own as it is where it fits, else derived and cached.

    Args:
        model: what `resolve` gave.
        format: what the backend reads.
        quant: for `gguf` only: `f16` (default) or a llama.cpp quant such as `q4_k_m`.
        tools: for `.pth` sources and for quantizing.
        progress: told about anything that takes long.
        cache: as for `resolve`.

    Raises:
        ModelError: the model cannot be had in this format or quant, or the disk is full.
    """
    root = store.folder(cache)
    wanted = _wanted_quant(model, format, quant)
    own = model.source if isinstance(model.source, ModelFile) else None
    if own is not None and own.format == format and wanted == own.quant:
        return own
    if own is not None and own.quantized:
        raise ModelError(
            f"{str(own.path)!r} is quantized as {own.quant} and serves {own.quant} alone, not"
            f" {wanted if format == 'gguf' else '.' + format}; give the model's .pth, .st or F16 .gguf file"
        )
    if wanted not in DTYPES:
        fits = own is not None and own.format == "gguf"
        base = own if own is not None and fits else file_for(model, "gguf", tools=tools, progress=progress, cache=cache)
        return _quantize(model, base, wanted, root, tools, progress)
    return _derive(model, format, wanted, root, tools, progress)


def _wanted_quant(model: Model, format: Format, quant: str | None) -> str:  # noqa: A002
    """The quant the file must have; a `.pth` serves in whatever precision it is, a `.st` must be float16."""
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


def _quantize(model: Model, base: ModelFile, quant: str, root: Path, tools: Tools, progress: Progress) -> ModelFile:
    def make(temporary: Path) -> None:
        progress(f"quantizing {model.name} to {quant}", 0.0)
        tools.quantize_gguf(base.path, temporary, quant)

    return _cached(_Target(model, "gguf", quant, base.size_bytes), make, root, progress)


def _derive(
    model: Model,
    format: Format,  # noqa: A002
    wanted: str,
    root: Path,
    tools: Tools,
    progress: Progress,
) -> ModelFile:
    source = model.source

    # A .pth keeps each tensor's own precision; of the other two the record's quant is the matrices'.
    precision = None if format == "pth" else cast("Precision", wanted)

    def make(temporary: Path) -> None:
        if isinstance(source, ModelFile) and source.format == "pth":
            progress(f"converting {source.path.name} to .{format}", 0.0)
            told = tools.convert_pth(source.path, temporary, format, precision)
        else:
            weights = derive.read(source.path, source.format) if isinstance(source, ModelFile) else source
            told = derive.write(weights, temporary, format, model.name.replace(":", " "), progress, precision)
        if told.rounded:
            progress(f"{model.name} as .{format}: {told.sentence}", 1.0)

    needed = derive.size_in(format, model.shape, cast("Precision", wanted))
    return _cached(_Target(model, format, wanted, needed), make, root, progress)


@dataclass(frozen=True, slots=True)
class _Target:
    """A derived file: what of, in which form, and the bytes it may need."""

    model: Model
    format: Format
    quant: str
    needed: int

    def path(self, root: Path) -> Path:
        shape, folder = self.model.shape, root / self.model.content_hash[:16]
        return folder / f"rwkv7-{shape.layers}x{shape.width}-{self.quant}.{self.format}"

    def exact(self) -> bool:
        """Whether the file holds the model's very numbers, so that its hash is known without reading it."""
        return isinstance(self.model.source, SyntheticModel) and self.quant in DTYPES


def _cached(target: _Target, make: Callable[[Path], None], root: Path, progress: Progress) -> ModelFile:
    """The derived file, made under a lock if it is not there whole, with its record beside it."""
    path = target.path(root)
    with store.locked(path, progress):
        if found := _recorded(target, path):
            return found
        with store.replacing(path, target.needed) as temporary:
            make(temporary)
            _check_made(target, temporary)
        digest = target.model.content_hash if target.exact() else _digest(path, target, progress)
        file = ModelFile(path, target.format, digest, target.model.shape, target.quant)
        store.write_json(_record_path(path), {**_record_key(target, path), "file": file.to_json()})
        return file


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _record_key(target: _Target, path: Path) -> dict[str, Any]:
    return {"layout": _LAYOUT_VERSION, "model": target.model.content_hash, "size": path.stat().st_size}


def _recorded(target: _Target, path: Path) -> ModelFile | None:
    record = _matching(_record_path(path), _record_key(target, path)) if path.exists() else None
    if record is None:
        return None
    return dataclasses.replace(ModelFile.from_json(record["file"]), path=path)


def _check_made(target: _Target, path: Path) -> None:
    """What a tool wrote is what was asked for: read its header before it gets its name."""
    if target.format == "gguf":
        made: tuple[Shape, str] = (file := gguf.read(path)).shape, file.quant
    elif target.format == "st":
        made = (weights := st.read(path)).shape, weights.precision
    else:
        pth.check_directory(path)
        return
    if made != (target.model.shape, target.quant):
        raise ModelError(
            f"{target.model.name} was to become {target.quant} of {target.model.shape},"
            f" but the file written is {made[1]} of {made[0]}"
        )


def _digest(path: Path, target: _Target, progress: Progress) -> str:
    if target.format == "pth":  # every tensor in its own precision
        return target.model.content_hash
    return _hash_of(path, target.format, progress)
