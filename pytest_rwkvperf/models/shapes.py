"""RWKV-7's public shapes, and the tensors that a model of a shape consists of.

Names, shapes and orientation are those of BlinkDL's `.pth` files, which this project calls canonical; `layouts`
describes the other formats as mappings from them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

BLOCK_VALUES = 1 << 22
"""Largest number of values of a matrix held in memory at once; also the block size of the content hash."""

RWKV_HEAD_SIZE = 64
_MATRIX = 2  # dimensions
LORA_NAMES = ("w", "a", "v", "g")
LERP_NAMES = ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g")


@dataclass(frozen=True, slots=True)
class Shape:
    """The dimensions of an RWKV-7 model.

    `width` is the channel count C; the ranks are those of the low-rank (LoRA) pairs of decay, in-context learning
    rate, value residual and gate.
    """

    layers: int
    width: int
    rank_w: int
    rank_a: int
    rank_v: int
    rank_g: int
    vocabulary: int = 65536
    head_size: int = RWKV_HEAD_SIZE

    @property
    def heads(self) -> int:
        """Heads of the time mixing, `width / head_size`."""
        return self.width // self.head_size

    @property
    def feed_forward(self) -> int:
        """Hidden width of the channel mixing, four times the width in every RWKV-7 model."""
        return 4 * self.width

    @property
    def parameters(self) -> int:
        """Published parameter count: 2VC + 4C + L(19C + 12C² + 2C·Σranks).

        It counts layer 0's value-residual tensors, which no engine uses and files may lack.
        """
        c, ranks = self.width, self.rank_w + self.rank_a + self.rank_v + self.rank_g
        return 2 * self.vocabulary * c + 4 * c + self.layers * (19 * c + 12 * c * c + 2 * c * ranks)

    @property
    def token_parameters(self) -> int:
        """Parameters of the matrices that every token of a prefill is multiplied with: those of the layers."""
        return self.layers * self.width * (12 * self.width + 2 * sum(map(self.rank, LORA_NAMES)))

    @property
    def state_floats(self) -> int:
        """Floats in the recurrent state: per layer two shifted tokens and one head_size² matrix per head."""
        return self.layers * (2 * self.width + self.head_size * self.width)

    def rank(self, lora: str) -> int:
        """Rank of the low-rank pair named `w`, `a`, `v` or `g`."""
        return {"w": self.rank_w, "a": self.rank_a, "v": self.rank_v, "g": self.rank_g}[lora]


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "nano": Shape(4, 256, 64, 64, 32, 128),
        "0.1b": Shape(12, 768, 64, 64, 32, 128),
        "0.4b": Shape(24, 1024, 64, 64, 32, 128),
        "1.5b": Shape(24, 2048, 96, 96, 64, 256),
        "2.9b": Shape(32, 2560, 96, 96, 64, 320),
        "7.2b": Shape(32, 4096, 128, 128, 96, 480),
        "13.3b": Shape(61, 4096, 192, 192, 128, 384),
    }
)
"""Public shapes by the name `synthetic:NAME` takes.

The ranks are read from the released files; formulas found in public code are wrong for 0.4b and 13.3b. `nano` is this
project's own: small enough for any machine, with dimensions distinct enough that a transposed tensor is detected.
"""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One canonical tensor: its `.pth` name and its shape there."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def rows(self) -> int:
        """Length of the first axis that is not one: matrices are cut into row blocks, vectors are one row."""
        return self.shape[0] if len(self.shape) == _MATRIX else 1

    @property
    def row_size(self) -> int:
        """Values in one row."""
        return self.size // self.rows

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Row ranges `(start, stop)` of at most `BLOCK_VALUES` values each, in order."""
        step = max(1, BLOCK_VALUES // self.row_size)
        for start in range(0, self.rows, step):
            yield start, min(start + step, self.rows)


def tensor_specs(shape: Shape) -> tuple[TensorSpec, ...]:
    """All canonical tensors of a shape, in the order files are written.

    Layer 0 has no `v0`, `v1`, `v2`: the first layer's value *is* the residual, so no engine reads them. A file may
    have them; they are ignored. A `.gguf` must have them and gets placeholders.
    """
    width, vocabulary = shape.width, shape.vocabulary
    specs = [TensorSpec("emb.weight", (vocabulary, width))]
    specs += _norm("blocks.0.ln0", width)
    for layer in range(shape.layers):
        specs += _layer_specs(shape, layer)
    specs += _norm("ln_out", width)
    specs.append(TensorSpec("head.weight", (vocabulary, width)))
    return tuple(specs)


def _norm(prefix: str, width: int) -> list[TensorSpec]:
    return [TensorSpec(f"{prefix}.weight", (width,)), TensorSpec(f"{prefix}.bias", (width,))]


def _layer_specs(shape: Shape, layer: int) -> list[TensorSpec]:
    width, att, ffn = shape.width, f"blocks.{layer}.att", f"blocks.{layer}.ffn"
    vector, square = (1, 1, width), (width, width)
    specs = _norm(f"blocks.{layer}.ln1", width) + _norm(f"blocks.{layer}.ln2", width)
    specs += [TensorSpec(f"{att}.{name}", vector) for name in LERP_NAMES]
    for lora in LORA_NAMES:
        if lora == "v" and layer == 0:
            continue
        if lora != "g":
            specs.append(TensorSpec(f"{att}.{lora}0", vector))
        specs.append(TensorSpec(f"{att}.{lora}1", (width, shape.rank(lora))))
        specs.append(TensorSpec(f"{att}.{lora}2", (shape.rank(lora), width)))
    specs += [TensorSpec(f"{att}.{name}", vector) for name in ("k_k", "k_a")]
    specs.append(TensorSpec(f"{att}.r_k", (shape.heads, shape.head_size)))
    specs += [TensorSpec(f"{att}.{name}.weight", square) for name in ("receptance", "key", "value", "output")]
    specs += _norm(f"{att}.ln_x", width)
    specs.append(TensorSpec(f"{ffn}.x_k", vector))
    specs.append(TensorSpec(f"{ffn}.key.weight", (shape.feed_forward, width)))
    specs.append(TensorSpec(f"{ffn}.value.weight", (width, shape.feed_forward)))
    return specs


def is_unused(name: str) -> bool:
    """Whether a canonical name is one of layer 0's value-residual tensors, which files may have and no engine reads."""
    return name in {"blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2"}


_FIRST = "emb.weight"

_OTHER_ARCHITECTURES = (
    (re.compile(r"time_maa|time_decay_w1|time_mix_w1"), "RWKV-6"),
    (re.compile(r"time_faaaa|att\.gate\.weight"), "RWKV-5"),
    (re.compile(r"time_first|time_mix_k"), "RWKV-4"),
    (re.compile(r"s_emb|ffn\.s[012]$"), "RWKV-7 with DeepEmbed"),
    (re.compile(r"^model\.|lm_head|self_attn"), "a model with Hugging Face tensor names"),
)


def shape_of(specs: Mapping[str, tuple[int, ...]]) -> Shape:
    """Read the shape from a file's canonical tensor names and shapes.

    Raises:
        ModelError: the tensors are not exactly those of an RWKV-7 model; the message names the first that is missing,
            unknown or of a wrong shape. The caller adds the file's name.
    """
    if prefix := next((name.removesuffix(_FIRST) for name in specs if name.endswith(f".{_FIRST}")), ""):
        raise ModelError(
            f"its tensors' names begin with {prefix!r}, as a wrapper of the training leaves them; take that off every "
            "name and save it again"
        )
    for pattern, what in _OTHER_ARCHITECTURES:
        if other := next((name for name in specs if pattern.search(name)), None):
            raise ModelError(f"it holds {what} (tensor {other!r}); only RWKV-7 files in BlinkDL's naming are measured")
    shape = _dimensions(specs)
    used = {name: dims for name, dims in specs.items() if not is_unused(name)}
    check_tensors(used, {spec.name: spec.shape for spec in tensor_specs(shape)}, _squeezed)
    return shape


def _squeezed(dims: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in dims if size != 1)


def check_tensors(
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    compared: Callable[[tuple[int, ...]], tuple[int, ...]],
) -> None:
    """Check that a file has exactly the expected tensors; `compared` gives the part of a shape that must be equal.

    Raises:
        ModelError: a tensor is missing, unknown or of a wrong shape.
    """
    for name, dims in expected.items():
        if name not in found:
            raise ModelError(f"it is not a complete RWKV-7 model: tensor {name!r} is missing")
        if compared(found[name]) != compared(dims):
            raise ModelError(f"it is not RWKV-7: tensor {name!r} has shape {list(found[name])}, expected {list(dims)}")
    if unknown := next((name for name in found if name not in expected), None):
        raise ModelError(f"it is not plain RWKV-7: tensor {unknown!r} is unknown")


def count_layers(names: Iterable[str], prefix: str) -> int:
    """The number of layers of tensors named `PREFIX.LAYER.…`.

    Raises:
        ModelError: there is none, or they are not 0, 1, 2 …: one name with a large number must not imply thousands.
    """
    numbers = {int(match[1]) for name in names if (match := re.match(rf"{prefix}\.(\d{{1,4}})\.", name))}
    if not numbers:
        raise ModelError(f"it is not RWKV-7: it has no tensor named '{prefix}.0…'")
    if max(numbers) >= len(numbers):
        missing = min(set(range(max(numbers))) - numbers)
        raise ModelError(f"it is not a complete RWKV-7 model: it has layer {max(numbers)} and no layer {missing}")
    return len(numbers)


def _dimensions(specs: Mapping[str, tuple[int, ...]]) -> Shape:
    layers = count_layers(specs, "blocks")
    vocabulary, width = matrix(specs, "emb.weight")
    heads, head_size = matrix(specs, "blocks.0.att.r_k")
    if head_size != RWKV_HEAD_SIZE or heads * head_size != width:
        raise ModelError(
            f"it is not RWKV-7: 'blocks.0.att.r_k' has shape {[heads, head_size]},"
            f" expected {[width // RWKV_HEAD_SIZE, RWKV_HEAD_SIZE]}"
        )
    ranks = {lora: matrix(specs, f"blocks.0.att.{lora}1")[1] for lora in ("w", "a", "g")}
    rank_v = matrix(specs, "blocks.1.att.v1")[1] if layers > 1 else ranks["a"]
    return Shape(layers, width, ranks["w"], ranks["a"], rank_v, ranks["g"], vocabulary, head_size)


def matrix(shapes: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, int]:
    """The dimensions of a matrix.

    Raises:
        ModelError: there is no tensor of this name, or it is not a matrix.
    """
    dims = shapes.get(name)
    if dims is None:
        raise ModelError(f"it is not a complete RWKV-7 model: tensor {name!r} is missing")
    if len(dims) != _MATRIX or min(dims) < 1:
        raise ModelError(f"it is not RWKV-7: tensor {name!r} has shape {list(dims)}, expected a matrix")
    return dims[0], dims[1]
