"""llama.cpp's `.gguf`: what its own converter writes for RWKV-7, without torch or transformers.

Writing goes through the `gguf` package for everything but the tensors' bytes, which are streamed. The header is read
here (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): the package's reader takes two seconds for the
vocabulary and trusts every length in the file; this one skips arrays and checks each length against the file first.
"""

from __future__ import annotations

import gzip
import re
import struct
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby
from math import prod
from operator import itemgetter
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models.layouts import Stored, canonical_tensors, gguf_layout, stored_blocks
from pytest_rwkvperf.models.model import errors_naming
from pytest_rwkvperf.models.shapes import RWKV_HEAD_SIZE, Shape, check_layers
from pytest_rwkvperf.models.streams import Progress, Ticker
from pytest_rwkvperf.models.weights import DTYPES, Array, MappedWeights, Weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from gguf import GGUFWriter

    from pytest_rwkvperf.models.model import Precision

ARCHITECTURE = "rwkv7"
_ALIGNMENT = 32
_CONTEXT_LENGTH = 1 << 20  # "RWKV isn't context limited", says the converter
_NORM_EPSILON = 1e-5
_METADATA_BYTES = 4 << 20  # vocabulary, keys and tensor list; the vocabulary is 1.2 MB
_EOT_TOKEN = 261  # "\n\n" ends a turn
_MOST_TEXTS = 1 << 18  # entries of all arrays of texts together; the vocabulary has 65 536
_MOST_KEYS = 4096  # a converter writes 25, a quantizer a few more
_LONGEST_TEXT = 1024  # bytes of a key or of a value that is read; others are stepped over
_TOKENIZER = "rwkv"
_READ_KEYS = frozenset(
    {"general.architecture", "general.alignment", "general.file_type", "tokenizer.ggml.model", "tokenizer.ggml.tokens"}
)


def size(shape: Shape, precision: Precision = "f16") -> int:
    """Bytes of a `.gguf` of this shape, to within its metadata."""
    return _METADATA_BYTES + sum(entry.nbytes + _ALIGNMENT for entry in gguf_layout(shape, precision))


def write(
    path: Path, weights: Weights, name: str, progress: Progress, sentence: str, precision: Precision = "f16"
) -> None:
    """Write an unquantized `.gguf`, streamed, with the world vocabulary and every key of llama.cpp's converter.

    `precision` is the matrices'; see `convert.gguf_layout` for the others.

    Raises:
        ModelError: the vocabulary is smaller than the world vocabulary, so llama.cpp could not tokenize for it.
    """
    layout = gguf_layout(weights.shape, precision)
    ticker = Ticker(progress, sentence, sum(entry.nbytes for entry in layout))
    _write_header(path, weights.shape, name, layout, precision)
    with path.open("ab") as file:
        _pad(file)
        for _, stream in groupby(stored_blocks(layout, weights), key=itemgetter(0)):
            for _, data in stream:
                file.write(data)
                ticker.add(len(data))
            _pad(file)


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))


def _write_header(path: Path, shape: Shape, name: str, layout: tuple[Stored, ...], precision: Precision) -> None:
    import gguf

    kinds = gguf.LlamaFileType
    file_types = {"f16": kinds.MOSTLY_F16, "bf16": kinds.MOSTLY_BF16, "f32": kinds.ALL_F32}

    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    for entry in layout:
        kind = gguf.GGMLQuantizationType[entry.precision.upper()]
        writer.add_tensor_info(entry.name, entry.shape, DTYPES[entry.precision], entry.nbytes, raw_dtype=kind)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_size_label(gguf.size_label(*writer.get_total_parameter_count()))
    _add_hyperparameters(writer, shape)
    writer.add_file_type(file_types[precision])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_vocabulary(writer, shape.vocabulary)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _add_hyperparameters(writer: GGUFWriter, shape: Shape) -> None:
    """Keys and values of llama.cpp's `conversion/rwkv.py`, `Rwkv7Model.set_gguf_parameters`."""
    writer.add_context_length(_CONTEXT_LENGTH)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_layer_norm_eps(_NORM_EPSILON)
    writer.add_wkv_head_size(shape.head_size)
    writer.add_decay_lora_rank(shape.rank_w)
    writer.add_iclr_lora_rank(shape.rank_a)
    writer.add_value_residual_mix_lora_rank(shape.rank_v)
    writer.add_gate_lora_rank(shape.rank_g)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(0)  # required by llama.cpp, unused


def _add_vocabulary(writer: GGUFWriter, size: int) -> None:
    """As llama.cpp's `conversion/base.py`, `_set_vocab_rwkv_world`."""
    import gguf

    tokens = world_tokens()
    if size < len(tokens):
        raise ModelError(
            f"a vocabulary of {size} tokens cannot become a .gguf: RWKV's world vocabulary has {len(tokens)}"
        )
    padding = [f"[PAD{index}]".encode() for index in range(len(tokens), size)]
    kinds = [gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(tokens) - 1)
    writer.add_tokenizer_model("rwkv")
    writer.add_token_list([*tokens, *padding])
    writer.add_token_types(kinds + [gguf.TokenType.UNUSED] * len(padding))
    writer.add_eot_token_id(_EOT_TOKEN)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_chat_template(_data("rwkv_world_chat.jinja").decode())


@cache
def world_tokens() -> tuple[bytes, ...]:
    """RWKV's world vocabulary as llama.cpp wants it: token 0, then each token as the inside of a bytes literal.

    Shipped with the package, because the `rwkv` package that carries it may not be installed; see `data/NOTICE.md`.
    """
    return (b"<s>", *gzip.decompress(_data("rwkv_world_tokens.txt.gz")).splitlines())


def _data(name: str) -> bytes:
    return files(__package__).joinpath("data", name).read_bytes()


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One entry of a `.gguf` tensor list; `start` is counted from the file's beginning, `shape` is NumPy's order."""

    name: str
    shape: tuple[int, ...]
    kind: str
    start: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A checked `.gguf` header: what it holds and where."""

    path: Path
    shape: Shape
    quant: str
    tensors: Mapping[str, GgufTensor]

    @property
    def quantized(self) -> bool:
        """Whether any tensor is in a block format, so that there are no canonical values to convert from."""
        return any(tensor.kind not in PLAIN_TYPES for tensor in self.tensors.values())

    def stored(self) -> Iterator[tuple[str, str, tuple[int, ...], Array]]:
        """Name, type, shape and mapped bytes of every tensor."""
        data = np.memmap(self.path, np.uint8, "r")
        for tensor in self.tensors.values():
            yield tensor.name, tensor.kind, tensor.shape, data[tensor.start : tensor.start + tensor.nbytes]

    def weights(self) -> MappedWeights:
        """The canonical tensors of an unquantized file, mapped."""
        stored = {name: as_array(kind, shape, data) for name, kind, shape, data in self.stored()}
        precision = PLAIN_TYPES[self.tensors["output.weight"].kind]
        return MappedWeights(self.shape, precision, canonical_tensors(gguf_layout(self.shape), stored))


PLAIN_TYPES: Mapping[str, Precision] = {"BF16": "bf16", "F16": "f16", "F32": "f32"}
"""Tensor types that hold one number per value; all others are block formats."""


def as_array(kind: str, shape: tuple[int, ...], data: Array) -> Array:
    """A plain tensor's mapped bytes as its numbers."""
    return data.view(DTYPES[PLAIN_TYPES[kind]]).reshape(shape)


def read(path: Path) -> GgufFile:
    """Check a `.gguf` header against the file and against RWKV-7; no tensor is read.

    Raises:
        ModelError: truncated, malformed, another architecture; names the file and the reason.
    """
    with errors_naming(path):
        return _read(path)


def _read(path: Path) -> GgufFile:
    if path.stat().st_size < _Cursor.FIXED_BYTES:
        raise ModelError("it is shorter than a .gguf header; it is truncated: download it again")
    cursor = _Cursor(np.memmap(path, np.uint8, "r"))
    keys = cursor.metadata()
    if (architecture := keys.get("general.architecture")) != ARCHITECTURE:
        raise ModelError(f"its architecture is {architecture!r}; only {ARCHITECTURE} is measured")
    tensors = {tensor.name: tensor for tensor in cursor.tensors(_alignment(keys))}
    shape = _shape(tensors)
    _check_vocabulary(keys, shape)
    return GgufFile(path, shape, _quant(keys, tensors), tensors)


def _alignment(keys: Mapping[str, object]) -> int:
    alignment = keys.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ModelError(f"its alignment is {alignment!r}, expected a power of two; it is damaged")
    return alignment


def _check_vocabulary(keys: Mapping[str, object], shape: Shape) -> None:
    """A tokenizer, where the file has one, is RWKV's and has as many tokens as the embedding has rows."""
    model, count = keys.get("tokenizer.ggml.model", _TOKENIZER), keys.get("tokenizer.ggml.tokens", shape.vocabulary)
    if model != _TOKENIZER:
        raise ModelError(f"its tokenizer is {model!r}, expected {_TOKENIZER!r}; convert the model again")
    if count != shape.vocabulary:
        raise ModelError(
            f"its vocabulary has {count} tokens and its embedding {shape.vocabulary} rows; convert the model again"
        )


def _quant(keys: Mapping[str, object], tensors: Mapping[str, GgufTensor]) -> str:
    """The quant's name in lower case: a quantizer's file type, or what the widest matrices are in.

    The file type is only a label: it counts where the tensors do not contradict it, that is for block formats.
    """
    import gguf

    matrices = tensors["blk.0.channel_mix_key.weight"].kind
    try:
        label = gguf.LlamaFileType(int(str(keys.get("general.file_type")))).name.partition("_")[2].lower()
    except ValueError:  # absent, or newer than the gguf package
        label = ""
    blocks = any(tensor.kind not in PLAIN_TYPES for tensor in tensors.values())
    return label if blocks and label and label.upper() not in PLAIN_TYPES else matrices.lower()


def _shape(tensors: Mapping[str, GgufTensor]) -> Shape:
    """Read the dimensions from a few tensors, then hold every tensor against the layout they imply."""
    vocabulary, width = _matrix(tensors, "token_embd.weight")
    if width % RWKV_HEAD_SIZE:
        raise ModelError(f"it is not RWKV-7: its width is {width}, expected a multiple of {RWKV_HEAD_SIZE}")
    ranks = {lora: _matrix(tensors, f"blk.0.time_mix_{lora}1.weight")[0] for lora in ("w", "a", "g")}
    numbers = {int(found[1]) for name in tensors if (found := re.match(r"blk\.(\d{1,4})\.", name))}
    check_layers(numbers)
    layers = len(numbers)
    rank_v = _matrix(tensors, f"blk.{min(1, layers - 1)}.time_mix_v1.weight")[0]
    shape = Shape(layers, width, ranks["w"], ranks["a"], rank_v, ranks["g"], vocabulary)
    layout = {entry.name: entry for entry in gguf_layout(shape)}
    for name, entry in layout.items():
        if name not in tensors:
            raise ModelError(f"it is not a complete RWKV-7 model: tensor {name!r} is missing")
        if prod(tensors[name].shape) != prod(entry.shape) or tensors[name].shape[-1] != entry.shape[-1]:
            found_shape, expected = list(tensors[name].shape), list(entry.shape)
            raise ModelError(f"it is not RWKV-7: tensor {name!r} has shape {found_shape}, expected {expected}")
    if unknown := next((name for name in tensors if name not in layout), None):
        raise ModelError(f"it is not plain RWKV-7: tensor {unknown!r} is unknown")
    return shape


def _matrix(tensors: Mapping[str, GgufTensor], name: str) -> tuple[int, int]:
    if name not in tensors:
        raise ModelError(f"it is not a complete RWKV-7 model: tensor {name!r} is missing")
    dims = tensors[name].shape
    if len(dims) != 2 or min(dims) < 1:  # noqa: PLR2004 - a matrix
        raise ModelError(f"it is not RWKV-7: tensor {name!r} has shape {list(dims)}, expected a matrix")
    return dims[0], dims[1]


class _Cursor:
    """Walks a `.gguf` header; every length is held against the bytes that remain before it is used."""

    FIXED_BYTES = 24
    _SCALARS: Mapping[int, str] = {
        0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
    }  # fmt: skip
    _STRING, _ARRAY = 8, 9
    _VERSIONS = (2, 3)
    _MOST_DIMENSIONS = 4
    _LONGEST_NAME = 63  # bytes: ggml.h's GGML_MAX_NAME without its final zero
    _TENSOR_BYTES = 1024  # that a tensor brings along at least, on average: 2.6 KB at the smallest width, 64

    def __init__(self, data: Array) -> None:
        self._data = data.data
        self._at = 4  # past the magic
        self._texts = 0
        version = self._number("I")
        if version not in self._VERSIONS:
            raise ModelError(f"its .gguf version is {version}, expected 2 or 3; it is damaged or big-endian")
        self._tensor_count = self._count("tensors", self._TENSOR_BYTES)
        self._key_count = self._count("keys", 13)
        if self._key_count > _MOST_KEYS:
            raise ModelError(f"it is said to have {self._key_count} keys; it is damaged")

    def metadata(self) -> dict[str, object]:
        """The keys that are read here: scalars, texts, and of an array its length. All others are stepped over."""
        keys = {}
        for _ in range(self._key_count):
            name = self._text()
            kind = self._number("I")
            if name in _READ_KEYS:
                keys[name] = self._value(kind)
            else:
                self._skip(kind)
        return keys

    def tensors(self, alignment: int) -> list[GgufTensor]:
        """The tensor list, with places in the file."""
        entries = []
        for _ in range(self._tensor_count):
            name = self._text(self._LONGEST_NAME)
            rank = self._number("I")
            if not 1 <= rank <= self._MOST_DIMENSIONS:
                raise ModelError(f"tensor {name!r} has {rank} dimensions; it is damaged")
            dims = tuple(self._number("Q") for _ in range(rank))[::-1]
            entries.append((name, dims, self._number("I"), self._number("Q")))
        if len({name for name, *_ in entries}) != len(entries):
            raise ModelError("two of its tensors have one name; it is damaged")
        base = self._at + -self._at % alignment
        return [self._placed(name, dims, number, base + offset) for name, dims, number, offset in entries]

    def _placed(self, name: str, dims: tuple[int, ...], number: int, start: int) -> GgufTensor:
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
        return GgufTensor(name, dims, kind.name, start, end - start)

    def _value(self, kind: int) -> object:
        if kind in self._SCALARS:
            return self._number(self._SCALARS[kind])
        if kind == self._STRING:
            return self._text()
        return self._skip(kind)

    def _skip(self, kind: int) -> int:
        """Step over a value; of an array its length is given, which must be believed by nobody but the vocabulary."""
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
            if self._texts > _MOST_TEXTS:
                raise ModelError(f"its metadata holds arrays of {self._texts} texts; it is damaged")
            for _ in range(count):
                self._advance(self._number("Q"))
        else:
            raise ModelError(f"its metadata holds an array of type {kind}; it is damaged")
        return count

    def _count(self, what: str, each: int) -> int:
        """A u64 that counts things of at least `each` bytes that must still fit in the file."""
        count = int(self._number("Q"))
        if count * each > len(self._data) - self._at:
            raise ModelError(f"it is said to have {count} {what}, more than fit; it is truncated or damaged")
        return count

    def _text(self, longest: int = _LONGEST_TEXT) -> str:
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
