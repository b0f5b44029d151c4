"""How far from the hardware an engine is: bytes and operations per token over what the device can move and compute.

    MBU (decode)  = bytes per token · tokens/s ÷ copy bandwidth
    MFU (prefill) = operations per token · tokens/s ÷ matrix-product rate

Sources: the roofline is Williams, Waterman, Patterson, "Roofline" (CACM 52, 2009); MFU is Chowdhery et al., "PaLM"
(arXiv 2204.02311, appendix B), here of a forward pass: 2 operations per weight and token; MBU is the memory's
counterpart, as in Agarwal et al., "LLM Inference Performance Engineering: Best Practices" (Databricks, 2023). Ceilings
are measured on the device, not a datasheet's.

A decoded token reads every weight once, but one row of the embedding, and reads and writes the recurrent state:

    bytes = stored bytes of all tensors but the embedding + 2 · 4 · state floats

A step of a batch reads the weights once and every sequence's state:

    bytes per step = stored bytes of all tensors but the embedding + batch · 2 · 4 · state floats

A token's operations are 2 per weight of each matrix, and per head of N = 64 channels 9 N² for the state
(decay N², S·k̂ 2N², its removal 2N², v·k 2N², readout 2N²); the head's 2VC are due once per chunk of a prefill,
because engines compute the last token's logits alone:

    layer operations = 2 · L · (12C² + 2C·Σranks) + 9 · 64 · C · L
    decode           = layer operations + 2VC
    prefill of n     = n · layer operations + ⌈n/chunk⌉ · 2VC
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.model import ModelFile
    from pytest_rwkvperf.models.shapes import Shape

_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}

_PACKED = {"int8": 1 + 4 / 128, "nf4": 0.5 + 2 / 64, "sf4": 0.5 + 2 / 64}
"""web-rwkv's bytes per quantized value: blocks of 128 with two float16, of 64 with one (oracle/emulation.py)."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a device reached; `source` says what ran there.

    Bytes per second of a copy, read and written both counted; operations per second of matrix products by format.
    """

    copy_bytes_per_second: float
    product_per_second: dict[str, float] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, slots=True)
class TokenWork:
    """What a token costs an engine. `product` is the number format in which it multiplies matrices in a prefill.

    `state_bytes` is the part of `decode_bytes` that each sequence of a batch needs; 0 in older records.
    """

    decode_bytes: float
    layer_operations: float
    head_operations: float
    product: str
    state_bytes: float = 0.0

    def step_bytes(self, batch: int) -> float:
        """What a step that decodes one token of each sequence reads and writes."""
        return self.decode_bytes + (batch - 1) * self.state_bytes


def work_of(shape: Shape, file: ModelFile, quant: str, backend: str, kind: str) -> TokenWork | None:
    """What a token costs an engine; None where it is not known how the engine holds the weights."""
    weights = _weight_bytes(shape, file.format, file.path, quant)
    if weights is None:
        return None
    matrices = shape.layers * (12 * shape.width**2 + 2 * shape.width * _ranks(shape))
    state = 9 * shape.head_size * shape.width * shape.layers
    head = 2 * shape.vocabulary * shape.width
    moved = 8.0 * shape.state_floats
    return TokenWork(weights + moved, 2 * matrices + state, head, product_format(backend, quant, kind), moved)


def product_format(backend: str, quant: str, kind: str) -> str:
    """`rwkv` allows TF32 for fp32 on CUDA; block formats are held against fp16, whose rate they were made to reach.

    A CPU's are all held against fp32, which its probes time and most of its kernels add up in.
    """
    if kind != "gpu":
        return "fp32"
    name = quant.partition("@")[0].lower()
    if name in {"fp32", "f32"}:
        return "tf32" if backend == "rwkv" else "fp32"
    return "bf16" if name == "bf16" else "fp16"


def _ranks(shape: Shape) -> int:
    return shape.rank_w + shape.rank_a + shape.rank_v + shape.rank_g


def _weight_bytes(shape: Shape, form: Format, path: Path, quant: str) -> float | None:
    """Bytes of all weights but the embedding as the engine holds them: a `.gguf` as it is, the others by the quant."""
    if form == "gguf":
        from pytest_rwkvperf.models.gguf_header import read_header

        tensors = read_header(path).tensors
        return float(sum(entry.nbytes for name, entry in tensors.items() if name != "token_embd.weight"))
    values = shape.parameters - shape.vocabulary * shape.width
    name, _, layers = quant.partition("@")
    if name in _BYTES:
        return _BYTES[name] * values
    if form != "st" or name not in _PACKED:
        return None
    covered = min(int(layers), shape.layers) if layers else shape.layers
    packed = 12 * shape.width**2 * covered
    return 2.0 * (values - packed) + _PACKED[name] * packed


def bandwidth_share(work: TokenWork, ceilings: Ceilings, tokens_per_second: float, batch: int = 1) -> float:
    """MBU of a generation, 0..1; beyond 1 where caches hold the weights. The rate is of all sequences of a batch."""
    return work.step_bytes(batch) * tokens_per_second / batch / ceilings.copy_bytes_per_second


def step_seconds(work: TokenWork, ceilings: Ceilings, batch: int) -> tuple[float, float]:
    """The least seconds of a generation's step: of moving its bytes, and of its products, 0 where none was timed."""
    product = ceilings.product_per_second.get(work.product)
    operations = batch * (work.layer_operations + work.head_operations)
    return work.step_bytes(batch) / ceilings.copy_bytes_per_second, operations / product if product else 0.0


def generation_limit(work: TokenWork, ceilings: Ceilings, batch: int) -> float:
    """Tokens per second of all sequences that a generation can reach: the lower of what memory and products allow."""
    return batch / max(step_seconds(work, ceilings, batch))


def compute_share(
    work: TokenWork, ceilings: Ceilings, tokens: int, chunk: int, tokens_per_second: float
) -> float | None:
    """MFU of a prefill of `tokens` in chunks, 0..1; None where no product of this format was timed.

    Of a batch these are one sequence's tokens and its share of a call, and the rate is of all sequences.
    """
    ceiling = ceilings.product_per_second.get(work.product)
    if not ceiling:
        return None
    per_token = work.layer_operations + math.ceil(tokens / chunk) * work.head_operations / tokens
    return per_token * tokens_per_second / ceiling
