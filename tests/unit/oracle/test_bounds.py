"""Which answers pass; NaN never does."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.oracle import bounds
from pytest_rwkvperf.oracle.agreement import Agreement, Answer, Deep, Fresh, Short, agreement
from pytest_rwkvperf.oracle.bounds import (
    BOUNDS,
    REPEAT,
    UNKNOWN,
    Bound,
    bound_for,
    broken_answer,
    broken_deep,
    broken_fresh,
    broken_short,
)

if TYPE_CHECKING:
    from pytest_rwkvperf.core.engine import DeviceKind

CUDA = Device("cuda:0", "NVIDIA H200", "gpu")
BOUND = Bound(1e-2)
GOOD = Agreement(finite=True, relative_l2=1e-2, kl=BOUND.kl, top_matches=True)
SHORT = Short(GOOD, GOOD, REPEAT)
DEEP = Deep(GOOD, 2e-2)
FRESH = Fresh(tokens=512, position=200, whole=2e-2, at_position=2e-2, changed=True)
NAN = float("nan")

BROKEN = [
    (dataclasses.replace(GOOD, finite=False, relative_l2=-1.0, kl=-1.0, top_matches=None), "not finite"),
    (dataclasses.replace(GOOD, relative_l2=1.01e-2), r"relative L2 0\.01 from the oracle, at most 0\.01"),
    (dataclasses.replace(GOOD, relative_l2=NAN), "relative L2 nan"),
    (dataclasses.replace(GOOD, kl=5.1e-3), r"KL divergence 0\.0051 nats from the oracle, at most 0\.005"),
    (dataclasses.replace(GOOD, kl=NAN), "KL divergence nan"),
    (dataclasses.replace(GOOD, top_matches=False), "another top token"),
]


def test_figures_at_their_bounds_pass() -> None:
    assert broken_short(SHORT, BOUND) == ""
    assert broken_deep(DEEP, BOUND) == ""
    assert broken_fresh(FRESH, BOUND) == ""
    assert broken_answer(Answer(3, "oracle", GOOD), BOUND) == ""
    far = dataclasses.replace(GOOD, relative_l2=2e-2, kl=4 * BOUND.kl)
    assert broken_answer(Answer(3, "pieces", far), BOUND) == ""


def test_a_top_token_without_a_clear_margin_passes() -> None:
    unclear = dataclasses.replace(GOOD, top_matches=None)
    assert broken_short(Short(unclear, unclear, 0.0), BOUND) == ""


@pytest.mark.parametrize(("pair", "sentence"), BROKEN)
def test_every_figure_can_fail_in_every_place(pair: Agreement, sentence: str) -> None:
    for problem, place in (
        (broken_short(Short(pair, GOOD, 0.0), BOUND), "prefill: "),
        (broken_short(Short(GOOD, pair, 0.0), BOUND), "generation: "),
        (broken_deep(Deep(pair, 0.0), BOUND), "at depth 600: "),
        (broken_answer(Answer(1, "oracle", pair), BOUND), ""),
    ):
        assert problem.startswith(place)
        assert re.search(sentence, problem), problem


@pytest.mark.parametrize("repeat", [1.1e-5, NAN, -1.0])
def test_a_second_pass_must_be_the_same(repeat: float) -> None:
    assert "a second pass after a state clear" in broken_short(Short(GOOD, GOOD, repeat), BOUND)


@pytest.mark.parametrize("rechunked", [2.1e-2, NAN, -1.0])
def test_another_chunk_must_agree(rechunked: float) -> None:
    assert "another chunk size" in broken_deep(Deep(GOOD, rechunked), BOUND)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"whole": 2.1e-2},
            "a prompt of 512 new tokens in the case's chunks and in other pieces: the logits differ by ",
        ),
        (
            {"whole": NAN},
            "a prompt of 512 new tokens in the case's chunks and in other pieces: the logits differ by nan",
        ),
        ({"whole": -1.0}, "a prompt of 512 new tokens gives logits that are not finite"),
        ({"at_position": 2.1e-2}, "a prompt of 200 new tokens in the case's chunks and in other pieces: "),
        ({"at_position": -1.0}, "a prompt of 200 new tokens gives logits that are not finite"),
        ({"changed": False}, "a prompt of 512 new tokens: those after the 200th do not change the logits"),
    ],
)
def test_new_tokens_must_give_the_same_in_other_pieces(change: dict[str, Any], sentence: str) -> None:
    assert broken_fresh(dataclasses.replace(FRESH, **change), BOUND).startswith(sentence)


def test_an_answer_compared_with_the_engines_own_may_differ_by_twice_the_bound() -> None:
    pair = dataclasses.replace(GOOD, relative_l2=2.1e-2)
    wanted = "relative L2 0.021 from the same tokens in other pieces, at most 0.02"
    assert broken_answer(Answer(1, "pieces", pair), BOUND) == wanted


def test_every_quant_of_every_built_in_backend_has_its_own_bound() -> None:
    known = {(name, quant) for name, place in registry.BUILT_IN.items() for quant in registry.load(place).quants}
    assert set(BOUNDS) == known


def test_kl_detects_an_error_in_probable_tokens_that_the_norm_does_not() -> None:
    oracle = np.random.default_rng(2).standard_normal(65536).astype(np.float32) * np.float32(3)
    oracle[7] = oracle.max() + 5
    engine = oracle.copy()
    engine[7] -= 0.5
    bound = BOUNDS["llama-cpp", "f16"]
    pair = agreement(engine, oracle, bound.relative_l2)
    assert pair.relative_l2 < bound.relative_l2
    assert pair.top_matches
    assert "KL divergence" in broken_short(Short(pair, pair, 0.0), bound)


def test_layer_count_does_not_change_the_bound() -> None:
    assert bound_for("web-rwkv", "int8@31") == BOUNDS["web-rwkv", "int8"]


def test_third_party_backends_have_the_widest_bound() -> None:
    assert bound_for("slowed", "q8_0") == UNKNOWN
    assert max(bound.relative_l2 for bound in BOUNDS.values()) == UNKNOWN.relative_l2


def test_the_digest_changes_with_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    before = bounds.digest()
    monkeypatch.setitem(BOUNDS, ("rwkv", "fp32"), Bound(2e-5))
    assert bounds.digest() != before


def test_gpu_bounds() -> None:
    assert bound_for("rwkv", "fp32@kernels", CUDA).relative_l2 > 100 * bound_for("rwkv", "fp32").relative_l2
    assert bound_for("llama-cpp", "q8_0", CUDA) == BOUNDS["llama-cpp", "q8_0"]
    assert set(bounds.GPU_BOUNDS) <= set(BOUNDS)


@pytest.mark.parametrize("kind", ["gpu", "software"])
def test_vulkan_bound_of_llama_cpp_holds_for_every_kind_of_device(kind: DeviceKind) -> None:
    device = Device("vulkan:0", "anything", kind)
    by_vulkan = bound_for("llama-cpp", "f16", device)
    assert by_vulkan.relative_l2 > bound_for("llama-cpp", "f16", CUDA).relative_l2
    assert bound_for("llama-cpp", "q8_0", device) == BOUNDS["llama-cpp", "q8_0"]
    table = bounds.GPU_BOUNDS if kind == "gpu" else BOUNDS
    assert bound_for("web-rwkv", "fp16", device) == table["web-rwkv", "fp16"]
    assert set(bounds.VULKAN_BOUNDS) <= set(BOUNDS)


def test_fused_and_unfused_passes_may_differ_on_a_gpu_only() -> None:
    jitted = Short(dataclasses.replace(GOOD, relative_l2=1e-4, kl=0.0), GOOD, 1.2e-3)
    on_gpu = bound_for("rwkv", "bf16", CUDA)
    assert broken_short(jitted, on_gpu) == ""
    assert "a second pass" in broken_short(jitted, bound_for("rwkv", "bf16"))
    assert "a second pass" in broken_short(dataclasses.replace(jitted, repeat=0.1), on_gpu)
