"""What CUPTI recorded, as operators."""

from __future__ import annotations

import pytest

from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.work import Amount
from pytest_rwkvperf.machine.cupti_buffers import Activity
from pytest_rwkvperf.witnesses.kernels import WITNESS, operator_of, operators


def test_kernels_of_one_name_are_added_up() -> None:
    """With the operator that they belong to before their names."""
    activities = [
        Activity("ampere_sgemm_128x64_tn", 0, 70, 1),
        Activity("ampere_sgemm_128x64_tn", 80, 110, 2),
        Activity("[copy]", 120, 125, 3),
        Activity("fused_add_sigmoid_s_16770289522302917071", 130, 132, 4),
    ]
    assert operators(activities) == {
        "copy [copy]": Amount(1, 0, 5),
        "elementwise fused_add_sigmoid_s": Amount(1, 0, 2),
        "matmul ampere_sgemm_128x64_tn": Amount(2, 0, 100),
    }


@pytest.mark.parametrize(
    ("kernel", "operator"),
    [
        ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::Half>>", "elementwise"),
        ("at::native::vectorized_layer_norm_kernel", "norm"),
        ("rwkv_wkv7_f32<64>", "wkv"),
        ("mul_mat_q<(ggml_type)8, 128, false>", "matmul"),
        ("cpy_f32_f16", "move"),
        ("nvjet_sm90_hsh_64x8_64x16_4x1_v_bz_NNT", "matmul"),
        ("[fill]", "fill"),
        ("something", "other"),
    ],
)
def test_a_kernel_belongs_to_an_operator(kernel: str, operator: str) -> None:
    """By its name in torch and in ggml."""
    assert operator_of(kernel) == operator


def test_it_counts_on_cuda_alone() -> None:
    """CUPTI sees no Vulkan."""
    assert WITNESS.suits("rwkv", Device("cuda:0", "GPU", "gpu"))
    assert not WITNESS.suits("llama-cpp", Device("vulkan:0", "GPU", "gpu"))
