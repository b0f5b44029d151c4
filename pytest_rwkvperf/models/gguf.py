"""Writes llama.cpp's `.gguf` as llama.cpp's own converter does for RWKV-7, without torch or transformers.

The `gguf` package writes everything but the tensors' bytes, which are streamed. `gguf_header` reads the files.
"""

from __future__ import annotations

import gzip
from functools import cache
from importlib.resources import files
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, BinaryIO

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models.gguf_header import ALIGNMENT, ARCHITECTURE, TOKENIZER
from pytest_rwkvperf.models.layouts import Stored, gguf_layout, stored_blocks
from pytest_rwkvperf.models.streams import Progress, Ticker
from pytest_rwkvperf.models.weights import DTYPES, Weights

if TYPE_CHECKING:
    from pathlib import Path

    from gguf import GGUFWriter

    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.shapes import Shape

_CONTEXT_LENGTH = 1 << 20  # RWKV has no context limit; this is the converter's value
_NORM_EPSILON = 1e-5
_METADATA_BYTES = 4 << 20  # vocabulary, keys and tensor list; the vocabulary is 1.2 MB
_END_OF_TURN_TOKEN = 261  # "\n\n"


def size(shape: Shape, precision: Precision = "f16") -> int:
    """Bytes of a `.gguf` of this shape, to within its metadata."""
    return _METADATA_BYTES + sum(entry.nbytes + ALIGNMENT for entry in gguf_layout(shape, precision))


def write(
    path: Path, weights: Weights, name: str, progress: Progress, sentence: str, precision: Precision = "f16"
) -> None:
    """Write an unquantized `.gguf`, streamed, with the world vocabulary and every key of llama.cpp's converter.

    `precision` is that of the matrices; `layouts.gguf_layout` has the precision of the other tensors.

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
    file.write(bytes(-file.tell() % ALIGNMENT))


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
    if problem := vocabulary_problem(size):
        raise ModelError(problem)
    padding = [f"[PAD{index}]".encode() for index in range(len(tokens), size)]
    kinds = [gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(tokens) - 1)
    writer.add_tokenizer_model(TOKENIZER)
    writer.add_token_list([*tokens, *padding])
    writer.add_token_types(kinds + [gguf.TokenType.UNUSED] * len(padding))
    writer.add_eot_token_id(_END_OF_TURN_TOKEN)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_chat_template(_data("rwkv_world_chat.jinja").decode())


def vocabulary_problem(size: int) -> str:
    """Why a model with a vocabulary of this size cannot be a `.gguf`; empty where it can."""
    least = len(world_tokens())
    return f"a vocabulary of {size} tokens cannot become a .gguf: RWKV's world vocabulary has {least}" * (size < least)


@cache
def world_tokens() -> tuple[bytes, ...]:
    """RWKV's world vocabulary as llama.cpp wants it: token 0, then each token as the inside of a bytes literal.

    Shipped with the package, because the `rwkv` package that carries it may not be installed; see `data/NOTICE.md`.
    """
    return (b"<s>", *gzip.decompress(_data("rwkv_world_tokens.txt.gz")).splitlines())


def _data(name: str) -> bytes:
    return files(__package__).joinpath("data", name).read_bytes()
