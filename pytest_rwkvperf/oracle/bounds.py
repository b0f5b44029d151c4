"""The largest distance of each engine's logits from the oracle's at which its speed is still measured."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.oracle.agreement import DEPTH

if TYPE_CHECKING:
    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.oracle.agreement import Agreement, Answer, Batched, Deep, Fresh, Short


REPEAT = 1e-5
"""Largest relative L2 between two passes from a cleared state, which may differ by the order of atomic sums."""

LOGIT_SCALE = 10.0
"""Root mean square of a trained model's logits, assumed on the high side (synthetic models have 2)."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Largest relative L2 of a right answer."""

    relative_l2: float
    repeat: float = REPEAT
    """Largest relative L2 between two passes from a cleared state."""

    @property
    def between(self) -> float:
        """Largest relative L2 between two right answers, which may lie on either side of the oracle's."""
        return 2 * self.relative_l2

    @property
    def kl(self) -> float:
        """Largest KL divergence, in nats: what such an error makes of logits of LOGIT_SCALE.

        KL(p ‖ q) is half the variance under p of the error in the logits, to second order (the softmax's Fisher
        information): ½ (relative_l2 · LOGIT_SCALE)². It shows errors in a few probable tokens that the norm does not.
        """
        return (self.relative_l2 * LOGIT_SCALE) ** 2 / 2


# Three times the largest figure of any seed, shape and depth in benchmarks/parity/spread.md, rounded up to two digits.
# Quants with the same arithmetic share the largest of their figures. The error grows like the square root of the depth
# (nano's 4 layers to 0.1b's 12: 1.5 to 1.9 times), so three also covers the 61 layers of 13.3b (2.25 times 0.1b's).
# For block formats llama.cpp also rounds activations to 8 bits: in blocks of 32 values, for k-quants of 256.
_FLOAT32 = Bound(3.9e-6)
_TORCH_BFLOAT16 = Bound(0.045)
_TORCH_FLOAT16 = Bound(5.5e-3)
_WEB_FLOAT16 = Bound(5e-3)
_BLOCKS_OF_32 = Bound(0.044)
_BLOCKS_OF_256 = Bound(0.056)

BOUNDS: dict[tuple[str, str], Bound] = {
    ("reference", "fp32"): _FLOAT32,
    ("rwkv", "fp32"): _FLOAT32,
    ("rwkv", "bf16"): _TORCH_BFLOAT16,
    ("rwkv", "fp16"): _TORCH_FLOAT16,
    ("llama-cpp", "f32"): Bound(1.6e-3),  # f16's: its figure depends on the shape, 8e-7 on 0.1b and 1e-4 on nano
    ("llama-cpp", "f16"): Bound(1.6e-3),
    ("llama-cpp", "bf16"): Bound(0.013),
    ("llama-cpp", "q8_0"): _BLOCKS_OF_32,
    ("llama-cpp", "q5_1"): _BLOCKS_OF_32,
    ("llama-cpp", "q5_0"): _BLOCKS_OF_32,
    ("llama-cpp", "q4_1"): _BLOCKS_OF_32,
    ("llama-cpp", "q4_0"): _BLOCKS_OF_32,
    ("llama-cpp", "q6_k"): _BLOCKS_OF_256,
    ("llama-cpp", "q5_k_m"): _BLOCKS_OF_256,
    ("llama-cpp", "q5_k_s"): _BLOCKS_OF_256,
    ("llama-cpp", "q4_k_m"): _BLOCKS_OF_256,
    ("llama-cpp", "q4_k_s"): _BLOCKS_OF_256,
    ("web-rwkv", "fp16"): _WEB_FLOAT16,
    ("web-rwkv", "int8"): _WEB_FLOAT16,
    ("web-rwkv", "nf4"): _WEB_FLOAT16,
    ("web-rwkv", "sf4"): _WEB_FLOAT16,
    # Measured in fp16 and in calls of fewer than 64 tokens alone (3.6e-3, 2.9b): the widest until its spread is known.
    **{("fla", quant): _BLOCKS_OF_256 for quant in ("fp32", "bf16", "fp16")},
    ("rwkv7-hf", "fp32"): _FLOAT32,
    ("rwkv7-hf", "bf16"): _TORCH_BFLOAT16,
    ("rwkv7-hf", "fp16"): _TORCH_FLOAT16,
}


def _compiled(relative_l2: float) -> Bound:
    """TorchScript fuses kernels after its first calls: answers before and after may err in opposite directions."""
    return Bound(relative_l2, repeat=2 * relative_l2)


# Where a GPU differs, by the same rule, with 2.9b measured too. rwkv allows TF32 for fp32 products; llama.cpp lets
# cuBLAS add in f16, whose error grows with the width: 2.9b's is 3.4 times 0.1b's. Block formats share the CPU's
# bounds, of which 2.9b uses 52 to 60 %.
GPU_BOUNDS: dict[tuple[str, str], Bound] = {
    ("rwkv", "fp32"): _compiled(1.4e-3),
    ("rwkv", "bf16"): _compiled(0.044),
    ("rwkv", "fp16"): _compiled(0.011),
    ("llama-cpp", "f16"): Bound(0.022),
    **{("web-rwkv", quant): Bound(0.011) for quant in ("fp16", "int8", "nf4", "sf4")},
}

# By the same rule, 2.9b measured too, on devices whose id has this prefix, hardware or software. llama.cpp's Vulkan
# shaders add in f16: nano's 0.0032 and 2.9b's 0.021 are four times and three times CUDA's. Formats not named here share
# the other tables' bounds, of which 2.9b's blocks use 47 %.
VULKAN = "vulkan:"
VULKAN_BOUNDS: dict[tuple[str, str], Bound] = {
    ("llama-cpp", "f16"): Bound(0.063),
}

UNKNOWN = _BLOCKS_OF_256
"""For third-party backends and for quants of later engine releases: the widest of the table."""


def bound_for(backend: str, quant: str, device: Device | None = None) -> Bound:
    """The bound of a backend and quant on a device, None for a CPU. Variants (`int8@31`) have their quant's bound."""
    key = (backend, quant.partition("@")[0])
    tables = [BOUNDS]
    if device is not None and device.kind == "gpu":
        tables.insert(0, GPU_BOUNDS)
    if device is not None and device.id.startswith(VULKAN):
        tables.insert(0, VULKAN_BOUNDS)
    return next((table[key] for table in tables if key in table), UNKNOWN)


def digest() -> str:
    """A hash of all bounds."""
    tables = [sorted(table.items(), key=lambda entry: entry[0]) for table in (BOUNDS, GPU_BOUNDS, VULKAN_BOUNDS)]
    rules = (tables, UNKNOWN, LOGIT_SCALE)
    return hashlib.sha256(repr(rules).encode()).hexdigest()[:16]


def broken_short(short: Short, bound: Bound) -> str:
    """What is wrong with the result of the short check, with the figures; empty when it is within the bound.

    The comparisons are written so that NaN fails.
    """
    for name, pair in (("prefill", short.prefill), ("generation", short.generation)):
        if problem := _broken(pair, bound):
            return f"{name}: {problem}"
    if short.repeat < 0:
        return "a second pass after a state clear gives logits that are not finite"
    if not short.repeat <= bound.repeat:
        return (
            f"a second pass after a state clear differs by {short.repeat:.2g} (relative L2, at most {bound.repeat:.2g})"
        )
    return ""


def broken_deep(deep: Deep, bound: Bound) -> str:
    """What is wrong with the result of the deep check; empty when it is within the bound."""
    if problem := _broken(deep.prefill, bound):
        return f"at depth {DEPTH}: {problem}"
    if deep.rechunked < 0:
        return "another chunk size gives logits that are not finite"
    if not deep.rechunked <= bound.between:
        return f"another chunk size differs by {deep.rechunked:.2g} (relative L2, at most {bound.between:.2g})"
    return ""


def broken_fresh(fresh: Fresh, bound: Bound) -> str:
    """What is wrong with the result of the check with new tokens; empty when it is within the bound."""
    for count, distance in ((fresh.tokens, fresh.whole), (fresh.position, fresh.at_position)):
        prompt = f"a prompt of {count} new tokens"
        if distance < 0:
            return f"{prompt} gives logits that are not finite"
        if not distance <= bound.between:
            return (
                f"{prompt} in the case's chunks and in other pieces: the logits differ by {distance:.2g} (relative L2, "
                f"at most {bound.between:.2g})"
            )
    if not fresh.changed:
        return f"a prompt of {fresh.tokens} new tokens: those after the {fresh.position}th do not change the logits"
    return ""


def broken_batch(batched: Batched, bound: Bound) -> str:
    """What is wrong with the result of the check of a batch; empty when it is within the bound."""
    size = batched.sequences
    for name, worst in (("prefill", batched.prefill), ("generation", batched.generation)):
        if problem := _broken(worst.agreement, bound):
            return f"{name} of sequence {worst.sequence + 1} of {size} at once: {problem}"
    compared = (
        ("the same tokens alone give", batched.alone),
        ("with another one cleared, it gives", batched.neighbours),
    )
    for what, (sequence, distance) in compared:
        where = f"sequence {sequence + 1} of {size} at once: {what}"
        if distance < 0:
            return f"{where} logits that are not finite"
        if not distance <= bound.between:
            return f"{where} logits that differ by {distance:.2g} (relative L2, at most {bound.between:.2g})"
    return ""


def excess(pair: Agreement, bound: Bound) -> float:
    """How far a pair lies beyond the bound: more than 1 exactly where `broken_answer` has a problem."""
    if not pair.finite or pair.top_matches is False:
        return float("inf")
    return max(pair.relative_l2 / bound.relative_l2, pair.kl / bound.kl)


def broken_answer(answer: Answer, bound: Bound) -> str:
    """What is wrong with what a timed repetition ended with; empty when it is within the bound."""
    if answer.compared_with == "oracle":
        return _broken(answer.agreement, bound)
    return _broken(answer.agreement, Bound(bound.between), "the same tokens in other pieces")


def _broken(pair: Agreement, bound: Bound, other: str = "the oracle") -> str:
    """What is wrong with logits that were compared with those of `other`; empty when they are within the bound."""
    if not pair.finite:
        return f"logits that are not finite, or not as many as those of {other}"
    if not pair.relative_l2 <= bound.relative_l2:
        return f"relative L2 {pair.relative_l2:.2g} from {other}, at most {bound.relative_l2:.2g}"
    if not pair.kl <= bound.kl:
        return f"KL divergence {pair.kl:.2g} nats from {other}, at most {bound.kl:.2g}"
    if pair.top_matches is False:
        return f"another top token than that of {other}, whose margin is clear"
    return ""
