"""Logits and state of a real model on a real adapter."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rwkvperf_web_rwkv as binding
from conftest import LAYERS, VOCABULARY, WIDTH, distance, tiny_model
from safetensors.numpy import save_file

Logits = npt.NDArray[np.float32]

TOKENS: list[int] = np.random.default_rng(1).integers(0, VOCABULARY, 600).tolist()


def one_by_one(model: binding.Model, tokens: list[int]) -> Logits:
    for token in tokens[:-1]:
        model.forward([token])
    return model.forward(tokens[-1:])


@pytest.fixture
def fresh(fp16: binding.Model) -> binding.Model:
    """The unquantized model in its initial state."""
    fp16.clear()
    return fp16


@pytest.fixture
def load(tiny_st: Path, adapter: int) -> Callable[..., binding.Model]:
    return lambda **settings: binding.Model(tiny_st, adapter=adapter, **settings)


def test_properties_are_those_of_the_file_and_the_settings(fresh: binding.Model, adapter: int) -> None:
    assert (fresh.layers, fresh.width, fresh.vocabulary) == (LAYERS, WIDTH, VOCABULARY)
    assert (fresh.quant, fresh.quant_layers, fresh.chunk) == ("fp16", 0, 128)
    assert fresh.adapter == binding.adapters()[adapter]
    assert "tiny.st" in repr(fresh)


def test_logits_are_a_float32_array_of_the_vocabulary(fresh: binding.Model) -> None:
    logits = fresh.forward(TOKENS[:64])
    assert logits.dtype == np.float32
    assert logits.shape == (VOCABULARY,)
    assert np.isfinite(logits).all()
    assert logits.std() > 0.01


def test_vocabulary_need_not_be_a_multiple_of_8(tmp_path: Path, adapter: int, fresh: binding.Model) -> None:
    """web-rwkv pads the head to a multiple of 8; the padding must not change the logits."""
    tensors = tiny_model()
    for name in ("emb.weight", "head.weight"):
        tensors[name] = tensors[name][:-3].copy()
    save_file(tensors, tmp_path / "odd.st")
    tokens = [token % (VOCABULARY - 3) for token in TOKENS[:40]]
    logits = binding.Model(tmp_path / "odd.st", adapter=adapter).forward(tokens)
    assert logits.shape == (VOCABULARY - 3,)
    assert distance(logits, fresh.forward(tokens)[:-3]) < 1e-3


def test_one_call_equals_token_by_token(fresh: binding.Model) -> None:
    at_once = fresh.forward(TOKENS[:64])
    fresh.clear()
    assert distance(one_by_one(fresh, TOKENS[:64]), at_once) < 1e-3


def test_clear_brings_the_initial_state_back(fresh: binding.Model) -> None:
    first = fresh.forward(TOKENS[:64])
    carried_on = fresh.forward(TOKENS[:64])
    fresh.clear()
    again = fresh.forward(TOKENS[:64])
    assert np.array_equal(again, first)
    assert distance(carried_on, first) > 1e-3


def test_loading_a_state_replaces_reading_the_tokens(fresh: binding.Model) -> None:
    fresh.forward(TOKENS[:100])
    kept = fresh.state()
    carried_on = fresh.forward(TOKENS[100:140])
    fresh.clear()
    for _ in range(2):
        fresh.load_state(kept)
        assert np.array_equal(fresh.forward(TOKENS[100:140]), carried_on)


def test_initial_state_is_zero_and_copies_do_not_change(fresh: binding.Model) -> None:
    kept = fresh.state()
    assert kept.shape == (LAYERS * (64 + 2) * WIDTH,)
    fresh.forward(TOKENS[:40])
    assert not kept.any()
    assert fresh.state().any()


def test_state_of_another_length_or_type_is_refused(fresh: binding.Model) -> None:
    fresh.forward(TOKENS[:40])
    kept = fresh.state()
    with pytest.raises(ValueError, match=f"state has 3 numbers, but this model's has {len(kept)}"):
        fresh.load_state(np.zeros(3, np.float32))
    with pytest.raises(TypeError):
        fresh.load_state(kept.astype(np.float64))  # type: ignore[arg-type]
    assert np.array_equal(fresh.state(), kept)


@pytest.mark.parametrize("chunk", [32, 100, binding.LARGEST_CHUNK])
def test_the_chunk_changes_nothing_but_speed(
    load: Callable[..., binding.Model], fresh: binding.Model, chunk: int
) -> None:
    """Prompts longer than a chunk and what follows, so that the state after the prompt is compared too."""
    model = load(chunk=chunk)
    assert model.chunk == -(-chunk // 32) * 32
    for tokens in (TOKENS[:500], TOKENS[500:501], TOKENS[501:]):
        assert distance(model.forward(tokens), fresh.forward(tokens)) < 1e-3


@pytest.mark.parametrize(("quant", "bound"), [("int8", 0.02), ("nf4", 0.2), ("sf4", 0.25)])
def test_quantized_logits_differ_a_little(
    load: Callable[..., binding.Model], fresh: binding.Model, quant: str, bound: float
) -> None:
    reference = fresh.forward(TOKENS[:64])
    whole, first_only = load(quant=quant), load(quant=quant, quant_layers=1)
    assert (whole.quant, whole.quant_layers, first_only.quant_layers) == (quant, LAYERS, 1)
    logits = whole.forward(TOKENS[:64])
    assert 1e-4 < distance(logits, reference) < bound
    assert distance(first_only.forward(TOKENS[:64]), logits) > 1e-4
    whole.clear()
    assert np.array_equal(whole.forward(TOKENS[:64]), logits)


def test_tokens_may_be_an_array_or_a_tuple(fresh: binding.Model) -> None:
    results = []
    for tokens in (TOKENS[:40], tuple(TOKENS[:40]), np.array(TOKENS[:40], dtype=np.int32)):
        fresh.clear()
        results.append(fresh.forward(tokens))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_two_models_keep_their_own_state(load: Callable[..., binding.Model], fresh: binding.Model) -> None:
    other = load()
    expected = fresh.forward(TOKENS[:64])
    fresh.clear()
    fresh.forward(TOKENS[:32])
    other.forward(TOKENS[64:96])
    assert distance(fresh.forward(TOKENS[32:64]), expected) < 1e-3


def ticks_in_the_middle(work: Callable[[], object]) -> int:
    """How often another Python thread ran in the middle half of one native call.

    The edges do not count: there the interpreter may switch threads before the call has begun.
    """
    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(0.001):
            ticks.append(time.perf_counter())

    other = threading.Thread(target=tick)
    other.start()
    try:
        start = time.perf_counter()
        work()
        end = time.perf_counter()
    finally:
        stop.set()
        other.join()
    quarter = (end - start) / 4
    assert quarter > 0.02, "too short to tell: thread switches alone take 5 ms"
    return sum(start + quarter < each < end - quarter for each in ticks)


def test_other_threads_run_during_forward(fresh: binding.Model) -> None:
    assert ticks_in_the_middle(lambda: fresh.forward(TOKENS * 4)) > 5


def test_other_threads_run_during_load(tmp_path: Path, adapter: int) -> None:
    path = tmp_path / "deep.st"
    save_file(tiny_model(layers=12), path)
    assert ticks_in_the_middle(lambda: binding.Model(path, adapter=adapter, quant="nf4")) > 5


def test_calls_from_two_threads_take_turns(fresh: binding.Model) -> None:
    expected = fresh.forward(TOKENS[:64])
    results: list[Logits] = []

    def run() -> None:
        results.extend(fresh.forward(TOKENS[:64]) for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 10
    assert all(np.isfinite(each).all() for each in results)
    fresh.clear()
    assert np.array_equal(fresh.forward(TOKENS[:64]), expected)


def test_probabilities_are_the_softmax_of_the_logits(fresh: binding.Model) -> None:
    logits = fresh.forward(TOKENS[:64]).astype(np.float64)
    fresh.clear()
    exponentials = np.exp(logits - logits.max())
    probabilities = fresh.probabilities(TOKENS[:64])
    assert distance(probabilities, (exponentials / exponentials.sum()).astype(np.float32)) < 1e-3
    assert probabilities.argmax() == logits.argmax()
