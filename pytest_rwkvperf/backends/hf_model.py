"""RWKV-7 as a model of Hugging Face's transformers: how its configuration and its tensors are called.

The names are flash-linear-attention's, which `rwkv7-hf` keeps. Both packages read folders that a converter has written
from a `.pth`; here the tensors of the `.pth` go into the model directly, so that what was checked is what is measured.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.errors import BackendError
from pytest_rwkvperf.models import pth_check

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_rwkvperf.models.shapes import Shape

_LORA = re.compile(r"att\.([wavg])([012])")
_LORA_PARTS = {"0": "2.bias", "1": "0.weight", "2": "2.weight"}
_MODULES = {
    "ln0": "pre_norm",
    "ln1": "attn_norm",
    "ln2": "ffn_norm",
    "att.ln_x": "attn.g_norm",
    "att.receptance": "attn.r_proj",
    "att.key": "attn.k_proj",
    "att.value": "attn.v_proj",
    "att.output": "attn.o_proj",
}
_OUTER = {"emb": "model.embeddings", "ln_out": "model.norm", "head": "lm_head"}


def name_of(canonical: str) -> str:
    """The name of a `.pth`'s tensor in the model."""
    module, _, leaf = canonical.rpartition(".")
    if module in _OUTER:
        return f"{_OUTER[module]}.{leaf}"
    _, layer, rest = canonical.split(".", 2)
    if lora := _LORA.fullmatch(rest):
        return f"model.layers.{layer}.attn.{lora[1]}_lora.lora.{_LORA_PARTS[lora[2]]}"
    module, _, leaf = rest.rpartition(".")
    module = _MODULES.get(module, module.replace("att", "attn"))
    return f"model.layers.{layer}.{module}.{leaf}"


def configuration(shape: Shape) -> dict[str, int]:
    """The arguments of `RWKV7Config` that describe a shape."""
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_heads": shape.heads,
        "head_dim": shape.head_size,
        "decay_low_rank_dim": shape.rank_w,
        "a_low_rank_dim": shape.rank_a,
        "v_low_rank_dim": shape.rank_v,
        "gate_low_rank_dim": shape.rank_g,
    }


def load(path: Path, dtype: str, make: Callable[[dict[str, int]], Any]) -> Any:  # noqa: ANN401 - no types here
    """A model with the weights of a `.pth`, each in the type that the model declares when torch's default is `dtype`.

    `make` constructs the model from the arguments of its configuration, without memory for weights (torch's device
    `meta`). For workers only: it imports torch and unpickles.

    Raises:
        BackendError: the model has other tensors than RWKV-7 in a `.pth`.
        ModelError: the file cannot be used.
    """
    import torch

    shape, stored = pth_check.load(path)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device("meta"):
            model = make(configuration(shape)).eval()
    finally:
        torch.set_default_dtype(before)
    declared = model.state_dict()
    named = {name_of(name): (name, tensor) for name, (tensor, _) in stored.items()}
    if other := named.keys() ^ declared.keys():
        raise BackendError(
            f"the engine's tensors and those of RWKV-7 differ in {', '.join(sorted(other)[:4])}; install a release of "
            "it that this project's extra of its name allows"
        )
    state = {}
    for own, (name, tensor) in named.items():
        values = tensor.t() if re.search(r"\.att\.[wavg][12]$", name) else tensor
        wanted = declared[own]
        state[own] = values.reshape(wanted.shape).to(wanted.dtype, copy=True, memory_format=torch.contiguous_format)
    model.load_state_dict(state, assign=True)
    return model
