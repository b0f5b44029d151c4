"""A tiny RWKV-7 model with random weights, and the adapter it runs on.

This distribution is tested on its own, so the generator is its own too and as small as it can be.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rwkvperf_web_rwkv as binding
from safetensors.numpy import save_file

LAYERS, WIDTH, VOCABULARY = 2, 128, 1000
RANKS = {"w": 32, "a": 32, "v": 16, "g": 64}

Tensors = dict[str, np.ndarray]


def tiny_model(layers: int = LAYERS, width: int = WIDTH, vocabulary: int = VOCABULARY, seed: int = 7) -> Tensors:
    """Seeded f16 tensors in web-rwkv's layout; the spreads keep every activation finite and the logits apart."""
    random = np.random.default_rng(seed)

    def uniform(*shape: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
        return random.uniform(low, high, shape).astype(np.float16)

    def matrix(rows: int, columns: int) -> np.ndarray:
        spread = 0.85 / np.sqrt(columns)
        return uniform(rows, columns, low=-spread, high=spread)

    def layer_norm(name: str) -> Tensors:
        return {f"{name}.weight": uniform(width, low=0.9, high=1.1), f"{name}.bias": uniform(width, low=-0.1, high=0.1)}

    tensors: Tensors = {"emb.weight": uniform(vocabulary, width), "head.weight": matrix(vocabulary, width)}
    tensors |= layer_norm("blocks.0.ln0") | layer_norm("ln_out")
    for layer in range(layers):
        block, att = f"blocks.{layer}", f"blocks.{layer}.att"
        tensors |= layer_norm(f"{block}.ln1") | layer_norm(f"{block}.ln2") | layer_norm(f"{att}.ln_x")
        tensors |= {f"{att}.x_{name}": uniform(1, 1, width, low=0.0) for name in "rwkvag"}
        for name, rank in RANKS.items():
            tensors[f"{att}.{name}1"] = matrix(rank, width)
            tensors[f"{att}.{name}2"] = matrix(width, rank)
        tensors |= {
            f"{att}.w0": uniform(1, 1, width, low=-6.0, high=-1.0),
            f"{att}.a0": uniform(1, 1, width, low=-0.5, high=0.5),
            f"{att}.v0": uniform(1, 1, width, low=0.5, high=1.0),
            f"{att}.k_k": uniform(1, 1, width, low=0.8, high=0.9),
            f"{att}.k_a": uniform(1, 1, width, low=0.9, high=1.1),
            f"{att}.r_k": uniform(width // 64, 64, low=-0.1, high=0.1),
            f"{block}.ffn.x_k": uniform(1, 1, width, low=0.0),
            f"{block}.ffn.key.weight": matrix(4 * width, width),
            f"{block}.ffn.value.weight": matrix(width, 4 * width),
        }
        tensors |= {f"{att}.{name}.weight": matrix(width, width) for name in ("receptance", "key", "value", "output")}
    return tensors


def distance(measured: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> float:
    """Relative L2 distance."""
    return float(np.linalg.norm(measured - reference) / np.linalg.norm(reference))


@pytest.fixture(scope="session")
def tiny_st(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A right model file: 2 layers, 128 wide, 1000 token ids."""
    path = tmp_path_factory.mktemp("models") / "tiny.st"
    save_file(tiny_model(), path)
    return path


@pytest.fixture(scope="session")
def adapter() -> int:
    """The first adapter. Without one these tests cannot say anything, so that is a failure and not a skip."""
    assert binding.adapters(), "no adapter: install a Vulkan driver (Debian: mesa-vulkan-drivers libvulkan1)"
    return 0


@pytest.fixture(scope="session")
def fp16(tiny_st: Path, adapter: int) -> binding.Model:
    """The tiny model unquantized. Tests that use it clear it first."""
    return binding.Model(tiny_st, adapter=adapter)
