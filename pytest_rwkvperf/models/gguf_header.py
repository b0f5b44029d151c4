"""Reads and checks the header of a `.gguf` file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

The `gguf` package's reader takes two seconds for the vocabulary and trusts every length in the file. This one skips
arrays and compares each length with the bytes that remain before using it.
"""

from __future__ import annotations

import struct
from math import prod
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models.header import MappedHeader, TensorEntry, mapped
from pytest_rwkvperf.models.layouts import gguf_layout
from pytest_rwkvperf.models.model import PRECISIONS, errors_naming
from pytest_rwkvperf.models.shapes import RWKV_HEAD_SIZE, Shape, check_tensors, count_layers, matrix

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_rwkvperf.models.weights import Array

ARCHITECTURE = "rwkv7"
TOKENIZER = "rwkv"
ALIGNMENT = 32
"""Bytes that tensors are aligned to where the file does not say."""

_MAX_TEXTS = 1 << 18  # entries of all arrays of texts together; the vocabulary has 65 536
_MAX_KEYS = 4096  # a converter writes 25, a quantizer a few more
_MAX_TEXT_BYTES = 1024  # bytes of a key, or of a value that is read; other values are skipped
_READ_KEYS = frozenset(
    {
        "general.architecture", "general.alignment", "general.file_type", "split.count", "split.no",
        "tokenizer.ggml.model", "tokenizer.ggml.tokens",
    }
)  # fmt: skip


def read_header(path: Path) -> MappedHeader:
    """Check the header against the file and against RWKV-7; no tensor is read.

    Raises:
        ModelError: truncated, malformed, another architecture; names the file and the reason.
    """
    with errors_naming(path):
        if path.stat().st_size < _Cursor.FIXED_BYTES:
            raise ModelError("it is shorter than a .gguf header; it is truncated: download it again")
        cursor = _Cursor(mapped(path))
        keys = cursor.metadata()
        _check_whole(keys)
        if (architecture := keys.get("general.architecture")) != ARCHITECTURE:
            raise ModelError(f"its architecture is {architecture!r}; only {ARCHITECTURE} is measured")
        tensors = {tensor.name: tensor for tensor in cursor.tensors(_alignment(keys))}
        shape = _shape(tensors)
        _check_vocabulary(keys, shape)
        return MappedHeader(path, "gguf", shape, _quant(keys, tensors), tensors, gguf_layout(shape))


def _check_whole(keys: Mapping[str, object]) -> None:
    """Refuse a part of a model that llama.cpp's `llama-gguf-split` divided."""
    count, number = keys.get("split.count", 1), keys.get("split.no", 0)
    if isinstance(count, int) and isinstance(number, int) and count > 1:
        raise ModelError(
            f"it is part {number + 1} of {count} of a divided model; join them with"
            " `llama-gguf-split --merge FIRST_PART WHOLE.gguf` and name the whole"
        )


def _alignment(keys: Mapping[str, object]) -> int:
    alignment = keys.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ModelError(f"its alignment is {alignment!r}, expected a power of two; it is damaged")
    return alignment


def _check_vocabulary(keys: Mapping[str, object], shape: Shape) -> None:
    """A tokenizer, where the file has one, is RWKV's and has as many tokens as the embedding has rows."""
    model, count = keys.get("tokenizer.ggml.model", TOKENIZER), keys.get("tokenizer.ggml.tokens", shape.vocabulary)
    if model != TOKENIZER:
        raise ModelError(f"its tokenizer is {model!r}, expected {TOKENIZER!r}; convert the model again")
    if count != shape.vocabulary:
        raise ModelError(
            f"its vocabulary has {count} tokens and its embedding {shape.vocabulary} rows; convert the model again"
        )


def _quant(keys: Mapping[str, object], tensors: Mapping[str, TensorEntry]) -> str:
    """The quant's name in lower case: the file type that a quantizer wrote, or the type of the largest matrices.

    The file type is only a label. It is used where some tensor is in a block format, because mixed quants such as
    Q4_K_M have no tensor type of their own.
    """
    import gguf

    matrices = tensors["blk.0.channel_mix_key.weight"].kind
    try:
        label = gguf.LlamaFileType(int(str(keys.get("general.file_type")))).name.partition("_")[2].lower()
    except ValueError:  # absent, or newer than the gguf package
        label = ""
    blocks = any(tensor.kind not in PRECISIONS for tensor in tensors.values())
    return label if blocks and label and label not in PRECISIONS else matrices


def _shape(tensors: Mapping[str, TensorEntry]) -> Shape:
    """The dimensions, read from a few tensors; every tensor is checked against the layout that they imply."""
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    vocabulary, width = matrix(shapes, "token_embd.weight")
    if width % RWKV_HEAD_SIZE:
        raise ModelError(f"it is not RWKV-7: its width is {width}, expected a multiple of {RWKV_HEAD_SIZE}")
    ranks = {lora: matrix(shapes, f"blk.0.time_mix_{lora}1.weight")[0] for lora in ("w", "a", "g")}
    layers = count_layers(shapes, "blk")
    rank_v = matrix(shapes, f"blk.{min(1, layers - 1)}.time_mix_v1.weight")[0]
    shape = Shape(layers, width, ranks["w"], ranks["a"], rank_v, ranks["g"], vocabulary)
    layout = {entry.name: entry.shape for entry in gguf_layout(shape)}
    check_tensors(shapes, layout, lambda dims: (prod(dims), dims[-1]))
    return shape


class _Cursor:
    """A position in a `.gguf` header; every length is compared with the bytes that remain before it is used."""

    FIXED_BYTES = 24
    _SCALARS: Mapping[int, str] = {
        0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
    }  # fmt: skip
    _STRING, _ARRAY = 8, 9
    _VERSIONS = (2, 3)
    _MAX_DIMENSIONS = 4
    _MAX_NAME_BYTES = 63  # bytes: ggml.h's GGML_MAX_NAME without its final zero
    _TENSOR_BYTES = 1024  # least bytes per tensor, on average; the smallest width, 64, has 2.6 KB

    def __init__(self, data: Array) -> None:
        self._data = data.data
        self._at = 4  # past the magic
        self._texts = 0
        version = self._number("I")
        if version not in self._VERSIONS:
            raise ModelError(f"its .gguf version is {version}, expected 2 or 3; it is damaged or big-endian")
        self._tensor_count = self._count("tensors", self._TENSOR_BYTES)
        self._key_count = self._count("keys", 13)
        if self._key_count > _MAX_KEYS:
            raise ModelError(f"it claims {self._key_count} keys; it is damaged")

    def metadata(self) -> dict[str, object]:
        """The values of `_READ_KEYS`: scalars, texts, and for an array its length. All other keys are skipped."""
        keys = {}
        for _ in range(self._key_count):
            name = self._text()
            kind = self._number("I")
            if name in _READ_KEYS:
                keys[name] = self._value(kind)
            else:
                self._skip(kind)
        return keys

    def tensors(self, alignment: int) -> list[TensorEntry]:
        """The tensor list, with offsets in the file."""
        entries = []
        for _ in range(self._tensor_count):
            name = self._text(self._MAX_NAME_BYTES)
            rank = self._number("I")
            if not 1 <= rank <= self._MAX_DIMENSIONS:
                raise ModelError(f"tensor {name!r} has {rank} dimensions; it is damaged")
            dims = tuple(self._number("Q") for _ in range(rank))[::-1]
            entries.append((name, dims, self._number("I"), self._number("Q")))
        if len({name for name, *_ in entries}) != len(entries):
            raise ModelError("two of its tensors have one name; it is damaged")
        base = self._at + -self._at % alignment
        return [self._placed(name, dims, number, base + offset) for name, dims, number, offset in entries]

    def _placed(self, name: str, dims: tuple[int, ...], number: int, start: int) -> TensorEntry:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            raise ModelError(f"tensor {name!r} has type {number}, unknown to the gguf package; upgrade it") from None
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if dims[-1] % block:
            raise ModelError(
                f"tensor {name!r} has rows of {dims[-1]} values, not whole blocks of {block}; it is damaged"
            )
        end = start + prod(dims) // block * block_bytes
        if end > len(self._data):
            raise ModelError(
                f"tensor {name!r} ends at byte {end} of {len(self._data)}; it is truncated: download it again"
            )
        return TensorEntry(name, kind.name.lower(), dims, start, end - start)

    def _value(self, kind: int) -> object:
        if kind in self._SCALARS:
            return self._number(self._SCALARS[kind])
        if kind == self._STRING:
            return self._text()
        return self._skip(kind)

    def _skip(self, kind: int) -> int:
        """Skip a value; returns the length of an array, 1 for other values."""
        if kind in self._SCALARS:
            self._advance(struct.calcsize("<" + self._SCALARS[kind]))
        elif kind == self._STRING:
            self._advance(self._number("Q"))
        elif kind == self._ARRAY:
            return self._skip_array()
        else:
            raise ModelError(f"its metadata holds a value of unknown type {kind}; it is damaged")
        return 1

    def _skip_array(self) -> int:
        kind = self._number("I")
        if kind in self._SCALARS:
            width = struct.calcsize("<" + self._SCALARS[kind])
            count = self._count("array entries", width)
            self._advance(count * width)
        elif kind == self._STRING:
            count = self._count("array entries", 8)
            self._texts += count
            if self._texts > _MAX_TEXTS:
                raise ModelError(f"its metadata holds arrays of {self._texts} texts; it is damaged")
            for _ in range(count):
                self._advance(self._number("Q"))
        else:
            raise ModelError(f"its metadata holds an array of type {kind}; it is damaged")
        return count

    def _count(self, what: str, each: int) -> int:
        """Read a u64 that counts things of at least `each` bytes, which must fit into the rest of the file."""
        count = int(self._number("Q"))
        if count * each > len(self._data) - self._at:
            raise ModelError(f"it claims {count} {what}, more than fit; it is truncated or damaged")
        return count

    def _text(self, longest: int = _MAX_TEXT_BYTES) -> str:
        length = self._number("Q")
        start = self._at
        self._advance(length)
        if length > longest:
            raise ModelError(f"its header holds a name or text of {length} bytes; it is damaged")
        return bytes(self._data[start : self._at]).decode(errors="replace")

    def _number(self, code: str) -> Any:  # noqa: ANN401 - int, float or bool by code
        start = self._at
        self._advance(struct.calcsize("<" + code))
        return struct.unpack_from("<" + code, self._data, start)[0]

    def _advance(self, count: int) -> None:
        if count > len(self._data) - self._at:
            raise ModelError("its header runs past the file's end; it is truncated: download it again")
        self._at += count
