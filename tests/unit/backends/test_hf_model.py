"""How an RWKV-7 model of Hugging Face's transformers is called, and that its weights come from the file alone."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.backends import hf_model
from pytest_rwkvperf.backends.rwkv7_hf import BACKEND
from pytest_rwkvperf.core.engine import OpenRequest
from pytest_rwkvperf.core.errors import BackendError, DeviceError
from pytest_rwkvperf.models import pth_check
from pytest_rwkvperf.models.shapes import SHAPES, tensor_specs

if TYPE_CHECKING:
    from collections.abc import Mapping

# As rwkv7-hf's own converter names them.
PUBLISHED = {
    "emb.weight": "model.embeddings.weight",
    "head.weight": "lm_head.weight",
    "ln_out.bias": "model.norm.bias",
    "blocks.0.ln0.weight": "model.layers.0.pre_norm.weight",
    "blocks.3.ln1.weight": "model.layers.3.attn_norm.weight",
    "blocks.3.ln2.bias": "model.layers.3.ffn_norm.bias",
    "blocks.3.att.x_r": "model.layers.3.attn.x_r",
    "blocks.3.att.k_a": "model.layers.3.attn.k_a",
    "blocks.3.att.r_k": "model.layers.3.attn.r_k",
    "blocks.3.att.w0": "model.layers.3.attn.w_lora.lora.2.bias",
    "blocks.3.att.w1": "model.layers.3.attn.w_lora.lora.0.weight",
    "blocks.3.att.g2": "model.layers.3.attn.g_lora.lora.2.weight",
    "blocks.3.att.receptance.weight": "model.layers.3.attn.r_proj.weight",
    "blocks.3.att.output.weight": "model.layers.3.attn.o_proj.weight",
    "blocks.3.att.ln_x.bias": "model.layers.3.attn.g_norm.bias",
    "blocks.3.ffn.x_k": "model.layers.3.ffn.x_k",
    "blocks.3.ffn.key.weight": "model.layers.3.ffn.key.weight",
}


@pytest.mark.parametrize(("canonical", "name"), PUBLISHED.items())
def test_tensors_have_the_published_names(canonical: str, name: str) -> None:
    assert hf_model.name_of(canonical) == name


def test_every_tensor_has_a_name_of_its_own() -> None:
    specs = tensor_specs(SHAPES["nano"])
    assert len({hf_model.name_of(spec.name) for spec in specs}) == len(specs)


def test_a_model_with_other_tensors_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it calls the tensor that is too many, its values would be those of an initialisation."""

    class Model:
        def __init__(self, names: Mapping[str, int]) -> None:
            assert names["num_hidden_layers"] == 4

        def eval(self) -> Model:
            return self

        def state_dict(self) -> dict[str, Any]:
            return dict.fromkeys(["model.norm.weight", "model.norm.scale"])

    types: list[str] = []
    torch = SimpleNamespace(
        float32="float32",
        get_default_dtype=lambda: "before",
        set_default_dtype=types.append,
        device=lambda _name: nullcontext(),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(pth_check, "load", lambda _path: (SHAPES["nano"], {"ln_out.weight": (None, "f32")}))
    with pytest.raises(BackendError, match=r"differ in model\.norm\.scale; install"):
        hf_model.load(Path("model.pth"), "float32", Model)
    assert types == ["float32", "before"]


def test_rwkv7_hf_is_measured_on_the_cpu_alone() -> None:
    with pytest.raises(DeviceError, match="no device 'cuda:0'"):
        BACKEND.open(OpenRequest(Path("model.pth"), "fp32", "cuda:0", 1, 512))
