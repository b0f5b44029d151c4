"""The oracle against the definition written out token by token, and its invariances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_rwkvperf.models.shapes import tensor_specs
from pytest_rwkvperf.oracle import rwkv7
from pytest_rwkvperf.oracle.agreement import relative_l2
from pytest_rwkvperf.oracle.rwkv7 import Oracle

if TYPE_CHECKING:
    import numpy.typing as npt

    from pytest_rwkvperf.models.synthetic import SyntheticModel

    Doubles = npt.NDArray[np.float64]

TOKENS = [5, 1, 299, 0, 17, 5, 5, 42, 128, 7]


class LongHand:
    """RWKV-7 one token and one head at a time in float64, with the state's transition as a matrix."""

    def __init__(self, model: SyntheticModel) -> None:
        self.w = {
            spec.name: model.rows(spec, 0, spec.rows, "f32").astype(np.float64).reshape(spec.shape)
            for spec in tensor_specs(model.shape)
        }
        shape = self.shape = model.shape
        self.before = {}
        for layer in range(shape.layers):
            for part in ("att", "ffn"):
                self.before[layer, part] = np.zeros(shape.width)
        self.states = np.zeros((shape.layers, shape.heads, 64, 64))

    def norm(self, x: Doubles, name: str, epsilon: float = 1e-5) -> Doubles:
        scaled = (x - x.mean()) / np.sqrt(x.var() + epsilon)
        result: Doubles = scaled if not name else scaled * self.w[name + ".weight"] + self.w[name + ".bias"]
        return result

    def step(self, token: int) -> Doubles:
        x = self.norm(self.w["emb.weight"][token], "blocks.0.ln0")
        for layer in range(self.shape.layers):
            x = x + self.attend(layer, self.norm(x, f"blocks.{layer}.ln1"))
            x = x + self.feed(layer, self.norm(x, f"blocks.{layer}.ln2"))
        return self.w["head.weight"] @ self.norm(x, "ln_out")

    def feed(self, layer: int, x: Doubles) -> Doubles:
        before, self.before[layer, "ffn"] = self.before[layer, "ffn"], x
        p = {name: self.w[f"blocks.{layer}.ffn.{name}"].reshape(-1) for name in ("x_k",)}
        mixed = x * (1 - p["x_k"]) + before * p["x_k"]
        hidden = self.w[f"blocks.{layer}.ffn.key.weight"] @ mixed
        result: Doubles = self.w[f"blocks.{layer}.ffn.value.weight"] @ np.where(hidden > 0, hidden, 0) ** 2
        return result

    def attend(self, layer: int, x: Doubles) -> Doubles:
        before, self.before[layer, "att"] = self.before[layer, "att"], x

        def get(name: str) -> Doubles:
            found = self.w[f"blocks.{layer}.att.{name}"]
            return found.reshape(-1) if found.ndim == 3 else found

        def mix(name: str) -> Doubles:
            return x * (1 - get("x_" + name)) + before * get("x_" + name)

        def sigmoid(value: Doubles) -> Doubles:
            return 1 / (1 + np.exp(-value))

        r, k, v = (get(f"{name}.weight") @ mix(name[0]) for name in ("receptance", "key", "value"))
        decay = np.exp(-sigmoid(np.tanh(mix("w") @ get("w1")) @ get("w2") + get("w0")) / np.sqrt(np.e))
        rate = sigmoid(mix("a") @ get("a1") @ get("a2") + get("a0"))
        gate = sigmoid(mix("g") @ get("g1")) @ get("g2")
        if layer == 0:
            self.first = v
        else:
            share = sigmoid(mix("v") @ get("v1") @ get("v2") + get("v0"))
            v = (1 - share) * v + share * self.first
        out = np.empty_like(v)
        for head in range(self.shape.heads):
            at = slice(64 * head, 64 * head + 64)
            removal = (k * get("k_k"))[at]
            removal = removal / np.linalg.norm(removal)
            added = (k * (1 - get("k_a") + rate * get("k_a")))[at]
            transition = np.diag(decay[at]) - np.outer(removal, rate[at] * removal)
            state = self.states[layer, head] = self.states[layer, head] @ transition + np.outer(v[at], added)
            scaled = self.norm(state @ r[at], "", 64e-5)
            out[at] = scaled * get("ln_x.weight")[at] + get("ln_x.bias")[at]
            out[at] += (r[at] @ (get("r_k")[head] * added)) * v[at]
        return get("output.weight") @ (gate * out)


def test_oracle_follows_the_definition(model: SyntheticModel) -> None:
    long_hand = LongHand(model)
    logits = [long_hand.step(token) for token in TOKENS][-1]
    assert relative_l2(Oracle(model).forward(TOKENS), logits) < 2e-6


def test_one_call_equals_token_by_token(model: SyntheticModel) -> None:
    whole, stepwise = Oracle(model), Oracle(model)
    logits = [stepwise.forward([token]) for token in TOKENS][-1]
    assert relative_l2(logits, whole.forward(TOKENS)) < 2e-6


def test_splitting_the_tokens_changes_nothing(model: SyntheticModel) -> None:
    whole = Oracle(model).forward(TOKENS)
    for split in range(1, len(TOKENS)):
        oracle = Oracle(model)
        oracle.forward(TOKENS[:split])
        assert relative_l2(oracle.forward(TOKENS[split:]), whole) < 2e-6


def test_clear_resets_the_state(model: SyntheticModel) -> None:
    oracle = Oracle(model)
    first = oracle.forward(TOKENS)
    assert relative_l2(oracle.forward(TOKENS), first) > 1e-2
    oracle.clear()
    np.testing.assert_array_equal(oracle.forward(TOKENS), first)


def test_block_size_changes_nothing(model: SyntheticModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Oracle(model).forward(TOKENS)
    monkeypatch.setattr(rwkv7, "_BLOCK_ELEMENTS", 1000)
    assert relative_l2(Oracle(model).forward(TOKENS), whole) < 1e-6


@pytest.mark.parametrize("constant", ["LAYER_NORM_EPSILON", "GROUP_NORM_EPSILON", "DECAY_SCALE"])
def test_each_constant_changes_the_logits(
    constant: str, model: SyntheticModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Oracle(model).forward(TOKENS)
    monkeypatch.setattr(rwkv7, constant, getattr(rwkv7, constant) * 1.5)
    assert relative_l2(Oracle(model).forward(TOKENS), right) > 1e-6
