"""Several sequences of one model: each is what it would be alone, whatever its neighbours do."""

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rwkvperf_web_rwkv as binding
from conftest import LAYERS, VOCABULARY, WIDTH, distance

Floats = npt.NDArray[np.float32]

TIGHT = 1e-3
"""Relative L2 between a sequence in a batch and alone: steps of 32 tokens run another kernel (seen: 4e-4)."""

PROMPTS: list[list[int]] = [
    np.random.default_rng(length).integers(0, VOCABULARY, length).tolist() for length in (17, 64, 1, 33, 90, 5, 48, 71)
]


@pytest.fixture
def model(fp16: binding.Model) -> binding.Model:
    fp16.clear()
    return fp16


@pytest.fixture
def make(model: binding.Model) -> Iterator[Callable[[int], binding.Batch]]:
    """Makes batches of the unquantized model, and frees them."""
    made: list[binding.Batch] = []

    def batch(sequences: int) -> binding.Batch:
        made.append(model.batch(sequences))
        return made[-1]

    yield batch
    for each in made:
        each.free()


def decode(batch: binding.Batch, steps: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """So many steps with a token for each sequence: the tokens, [steps, sequences], and the last logits."""
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, (steps, batch.sequences))
    logits = [batch.forward([[int(token)] for token in step]) for step in tokens]
    return tokens, logits[-1]


def alone(model: binding.Model, *parts: Sequence[int]) -> Floats:
    """The logits after the parts, one call for each, of the model's own sequence."""
    model.clear()
    for part in parts[:-1]:
        model.forward(part)
    return model.forward(parts[-1])


@pytest.mark.parametrize("sequences", [1, 2, 4, 8])
def test_each_sequence_is_what_it_is_alone(
    model: binding.Model, make: Callable[[int], binding.Batch], sequences: int
) -> None:
    batch = make(sequences)
    assert batch.sequences == sequences
    prompts = PROMPTS[:sequences]
    logits = batch.forward(prompts)
    assert logits.dtype == np.float32
    assert logits.shape == (sequences, VOCABULARY)
    steps = [[each[0] for each in prompts], [each[-1] for each in prompts]]
    later = [batch.forward([[token] for token in step]) for step in steps]
    for index, prompt in enumerate(prompts):
        assert distance(logits[index], alone(model, prompt)) < TIGHT
        for step, found in zip(steps, later, strict=True):
            assert distance(found[index], model.forward([step[index]])) < TIGHT
        assert distance(batch.state()[index], model.state()) < TIGHT


@pytest.mark.parametrize("sequences", [31, 32, 33, 40, 64, 255, 256])
def test_a_step_of_many_sequences_loses_none(
    model: binding.Model, make: Callable[[int], binding.Batch], sequences: int
) -> None:
    """Around 32, where the engine changes its kernels and splits steps, and at the most that 8 bits can number."""
    tokens, logits = decode(make(sequences), 3)
    for index in {0, 1, sequences // 2, sequences - 2, sequences - 1}:
        parts = [[int(token)] for token in tokens[:, index]]
        assert distance(logits[index], alone(model, *parts)) < TIGHT


def test_more_prompts_than_a_chunk_are_read_whole(model: binding.Model, make: Callable[[int], binding.Batch]) -> None:
    """The engine advances some sequences further than others in one of its steps of 128 tokens."""
    prompts = [[*prompt * 4][:300] for prompt in PROMPTS[:5]]
    logits = make(5).forward(prompts)
    assert sum(map(len, prompts)) > 3 * model.chunk
    for found, prompt in zip(logits, prompts, strict=True):
        assert distance(found, alone(model, prompt)) < TIGHT


def test_one_sequence_with_a_long_prompt_among_256_keeps_its_state_right(
    model: binding.Model, make: Callable[[int], binding.Batch]
) -> None:
    """A chunk of 256 tokens of one sequence would leave a wrong state, though 256 sequences take 256 tokens a step."""
    prompt = [*PROMPTS[0] * 60][:400]
    batch = make(256)
    lists: list[list[int]] = [[] for _ in range(256)]
    lists[255] = prompt
    batch.forward(lists)
    lists[255] = [7]
    assert distance(batch.forward(lists)[255], alone(model, prompt, [7])) < TIGHT


def test_staggered_starts_in_another_order(model: binding.Model, make: Callable[[int], binding.Batch]) -> None:
    """Sequences begin one after another while those that began go on; one that waits has no logits."""
    batch = make(4)
    order = [2, 0, 3, 1]
    fed: list[list[int]] = [[] for _ in range(4)]
    for position, starting in enumerate(order):
        lists: list[list[int]] = [[] for _ in range(4)]
        lists[starting] = PROMPTS[starting]
        for running in order[:position]:
            lists[running] = [11 * position + running]
        for each, new in zip(fed, lists, strict=True):
            each.extend(new)
        logits = batch.forward(lists)
        for index, new in enumerate(lists):
            assert np.isnan(logits[index]).all() == (not new)
            if new:
                assert distance(logits[index], alone(model, fed[index])) < TIGHT


def test_one_cleared_sequence_touches_no_other(model: binding.Model, make: Callable[[int], binding.Batch]) -> None:
    batch = make(4)
    batch.forward(PROMPTS[:4])
    states = batch.state()
    step = [[1], [2], [3], [4]]
    expected = batch.forward(step)
    batch.load_state(states)
    batch.clear_sequence(2)
    cleared = batch.state()
    assert not cleared[2].any()
    kept = [0, 1, 3]
    assert np.array_equal(cleared[kept], states[kept])
    logits = batch.forward(step)
    assert np.array_equal(logits[kept], expected[kept])
    assert distance(logits[2], alone(model, [3])) < TIGHT
    batch.clear()
    assert not batch.state().any()


def test_states_have_a_row_each_that_a_model_takes(model: binding.Model, make: Callable[[int], binding.Batch]) -> None:
    batch = make(3)
    assert batch.state().shape == (3, LAYERS * (64 + 2) * WIDTH)
    assert not batch.state().any()
    batch.forward(PROMPTS[:3])
    states = batch.state()
    expected = batch.forward([[5], [6], [7]])
    for index, token in enumerate([5, 6, 7]):
        model.load_state(states[index])
        assert distance(model.forward([token]), expected[index]) < TIGHT
    batch.load_state(np.ascontiguousarray(states[::-1]))
    turned = batch.forward([[7], [6], [5]])
    assert distance(turned, expected[::-1]) < TIGHT
    batch.load_state(states[::-1][::-1])
    assert np.array_equal(batch.state(), states)


def test_states_of_another_shape_are_refused(make: Callable[[int], binding.Batch]) -> None:
    batch = make(2)
    batch.forward(PROMPTS[:2])
    states = batch.state()
    with pytest.raises(ValueError, match="state has 3 rows, but this batch has 2 sequences"):
        batch.load_state(np.zeros((3, states.shape[1]), np.float32))
    with pytest.raises(ValueError, match=f"state has 5 numbers, but this model's has {states.shape[1]}"):
        batch.load_state(np.zeros((2, 5), np.float32))
    with pytest.raises(TypeError):
        batch.load_state(states[0])
    assert np.array_equal(batch.state(), states)


def test_the_model_s_own_sequence_and_two_batches_do_not_meet(
    model: binding.Model, make: Callable[[int], binding.Batch]
) -> None:
    expected = alone(model, PROMPTS[0], [3])
    model.clear()
    model.forward(PROMPTS[0])
    first, second = make(2), make(2)
    second.forward(PROMPTS[3:5])
    first.forward(PROMPTS[1:3])
    assert np.array_equal(model.forward([3]), expected)
    assert distance(second.forward([[9], [9]])[1], alone(model, PROMPTS[4], [9])) < TIGHT
    assert distance(first.forward([[9], [9]])[1], alone(model, PROMPTS[2], [9])) < TIGHT


@pytest.mark.parametrize("quant", ["int8", "nf4", "sf4"])
def test_quantized_weights_in_a_batch(tiny_st: Path, adapter: int, quant: str) -> None:
    """With 32 sequences, whose steps run the kernels for whole chunks."""
    model = binding.Model(tiny_st, adapter=adapter, quant=quant)
    for sequences in (3, 32):
        tokens, logits = decode(model.batch(sequences), 2)
        for index in (0, sequences - 1):
            assert distance(logits[index], alone(model, *[[int(token)] for token in tokens[:, index]])) < TIGHT


@pytest.mark.parametrize("sequences", [0, -1, 257])
def test_a_batch_that_would_share_states_is_refused(model: binding.Model, sequences: int) -> None:
    assert binding.LARGEST_BATCH == 256
    with pytest.raises(ValueError, match=f"sequences is {sequences}, but must be 1 to 256"):
        model.batch(sequences)


def test_wrong_tokens_and_numbers_are_refused_and_change_no_state(make: Callable[[int], binding.Batch]) -> None:
    batch = make(2)
    batch.forward(PROMPTS[:2])
    states = batch.state()
    for tokens, named in (
        ([[1]], "tokens has 1 lists, but this batch has 2 sequences"),
        ([[], []], "tokens is empty for every sequence"),
        ([[1], [2, VOCABULARY]], rf"tokens\[1\]\[1\] is {VOCABULARY}, but this model's token ids are 0 to 999"),
    ):
        with pytest.raises(ValueError, match=named):
            batch.forward(tokens)
    with pytest.raises(TypeError):
        batch.forward([1, 2])  # type: ignore[list-item]  # wrong on purpose
    with pytest.raises(ValueError, match="sequence is 2, but this batch's sequences are 0 to 1"):
        batch.clear_sequence(2)
    assert np.array_equal(batch.state(), states)


def test_a_freed_batch_refuses_and_the_model_goes_on(model: binding.Model) -> None:
    expected = alone(model, PROMPTS[0])
    batch = model.batch(2)
    batch.forward(PROMPTS[:2])
    batch.free()
    batch.free()
    with pytest.raises(binding.WebRwkvError, match=r"^this batch is freed: make another one$"):
        batch.forward(PROMPTS[:2])
    assert np.array_equal(alone(model, PROMPTS[0]), expected)
    assert model.batch(2).forward(PROMPTS[:2]).shape == (2, VOCABULARY)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident memory by way of /proc")
def test_the_memory_of_freed_batches_is_given_back(model: binding.Model) -> None:
    """The states of 256 sequences of this model are 17 MB."""
    if model.adapter.kind != "cpu":
        pytest.skip("the states are in the memory of a GPU")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize()

    def use() -> None:
        batch = model.batch(256)
        batch.forward([[1]] * 256)
        batch.free()

    for _ in range(2):
        use()
    before = resident()
    for _ in range(12):
        use()
    assert resident() - before < 100e6
