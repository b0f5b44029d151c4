from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.models import shapes
from pytest_rwkvperf.models.hashing import _canonical, content_hash, stored_hash
from pytest_rwkvperf.models.header import TensorEntry
from pytest_rwkvperf.models.shapes import tensor_specs
from pytest_rwkvperf.models.weights import DTYPES, Array, MappedWeights, bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.models.model import Precision
    from pytest_rwkvperf.models.streams import Progress
    from pytest_rwkvperf.models.synthetic import SyntheticModel

half_bits = st.lists(st.integers(0, 65535), min_size=1, max_size=40)


def recast(weights: MappedWeights, precision: Precision) -> MappedWeights:
    specs = tensor_specs(weights.shape)
    tensors = {spec.name: weights.rows(spec, 0, spec.rows, precision).reshape(spec.shape) for spec in specs}
    return MappedWeights(weights.shape, precision, tensors)


def canonical(values: Array) -> tuple[bytes, bytes]:
    tag, bits = _canonical(values)
    return tag, bytes(bytes_of(bits))


@given(half_bits)
def test_float16_and_float32_have_the_same_canonical_form(bits: list[int]) -> None:
    half = np.array(bits, np.uint16).view(np.float16)
    half = half[np.isfinite(half)]
    assert canonical(half) == canonical(half.astype(np.float32))


@given(half_bits)
def test_bfloat16_and_float32_have_the_same_canonical_form(bits: list[int]) -> None:
    brain = np.array(bits, np.uint16).view(DTYPES["bf16"])
    brain = brain[np.isfinite(brain.astype(np.float32))]
    assert canonical(brain) == canonical(brain.astype(np.float32))


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20, unique_by=repr))
def test_different_values_have_different_forms(values: list[float]) -> None:
    forms = {canonical(np.array([value], np.float32)) for value in values}
    assert len(forms) == len(values)


def test_the_narrow_form_is_half_as_long() -> None:
    assert len(canonical(np.array([1.5], np.float32))[1]) == 2
    assert len(canonical(np.array([1.0009765625], np.float16))[1]) == 4


def test_one_model_in_three_precisions_has_one_hash(
    make_weights: Callable[[Precision, int], MappedWeights], quiet: Progress
) -> None:
    brain = make_weights("bf16", 0)
    exact = recast(recast(brain, "f16"), "bf16")  # what both 16-bit formats hold
    hashes = {content_hash(recast(exact, precision), quiet, "") for precision in ("bf16", "f16", "f32")}
    assert len(hashes) == 1


def test_full_float16_precision_counts(
    make_weights: Callable[[Precision, int], MappedWeights], quiet: Progress
) -> None:
    half = make_weights("f16", 0)
    assert content_hash(half, quiet, "") == content_hash(recast(half, "f32"), quiet, "")
    assert content_hash(half, quiet, "") != content_hash(recast(half, "bf16"), quiet, "")


@pytest.mark.parametrize("name", ["emb.weight", "blocks.0.att.x_g", "blocks.1.att.v2", "head.weight"])
def test_one_bit_changes_the_hash(
    name: str, make_weights: Callable[[Precision, int], MappedWeights], quiet: Progress
) -> None:
    weights = make_weights("bf16", 0)
    before = content_hash(weights, quiet, "")
    weights._tensors[name].reshape(-1)[-1:].view(np.uint16)[0] ^= 1
    assert content_hash(weights, quiet, "") != before


def test_swapped_tensors_change_the_hash(
    make_weights: Callable[[Precision, int], MappedWeights], quiet: Progress
) -> None:
    weights = make_weights("bf16", 0)
    tensors = dict(weights._tensors)
    first, second = "blocks.0.att.key.weight", "blocks.0.att.value.weight"
    tensors[first], tensors[second] = tensors[second], tensors[first]
    swapped = MappedWeights(weights.shape, "bf16", tensors)
    assert content_hash(swapped, quiet, "") != content_hash(weights, quiet, "")


def test_every_block_of_a_matrix_is_hashed(
    make_weights: Callable[[Precision, int], MappedWeights],
    quiet: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shapes, "BLOCK_VALUES", 64)  # one row a block
    weights = make_weights("bf16", 0)
    before = content_hash(weights, quiet, "")
    weights._tensors["head.weight"][37, 0:1].view(np.uint16)[0] ^= 1
    assert content_hash(weights, quiet, "") != before


def test_stored_hash_depends_on_type_shape_and_bytes_but_not_on_order(quiet: Progress) -> None:
    def tensor(
        name: str, kind: str = "q8_0", shape: tuple[int, ...] = (4,), step: int = 1
    ) -> tuple[TensorEntry, Array]:
        return TensorEntry(name, kind, shape, 0, 4), np.arange(4, dtype=np.uint8)[::step]

    base = stored_hash([tensor("a"), tensor("b")], quiet, "")
    assert stored_hash([tensor("b"), tensor("a")], quiet, "") == base
    assert stored_hash([tensor("a", kind="q4_0"), tensor("b")], quiet, "") != base
    assert stored_hash([tensor("a", shape=(2, 2)), tensor("b")], quiet, "") != base
    assert stored_hash([tensor("a", step=-1), tensor("b")], quiet, "") != base


def test_progress_reaches_the_end(model: SyntheticModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_rwkvperf.models.streams._SECONDS_BETWEEN", 0.0)
    reports: list[tuple[str, float]] = []
    content_hash(model, lambda sentence, fraction: reports.append((sentence, fraction)), "hashing tiny")
    assert {sentence for sentence, _ in reports} == {"hashing tiny"}
    assert [fraction for _, fraction in reports] == sorted(fraction for _, fraction in reports)
    assert reports[-1][1] == 1.0
