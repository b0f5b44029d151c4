from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core import invariants
from pytest_rwkvperf.models.shapes import SHAPES

if TYPE_CHECKING:
    from pytest_rwkvperf.core.engine import DeviceKind


@pytest.mark.parametrize(
    ("kind", "shape", "depth"),
    [
        ("cpu", "nano", 4096),
        ("cpu", "0.1b", 1024),
        ("cpu", "2.9b", 256),
        ("gpu", "2.9b", 4096),
        ("software", "nano", 512),
        ("software", "0.1b", 256),
    ],
)
def test_a_device_is_asked_about_what_it_manages(kind: DeviceKind, shape: str, depth: int) -> None:
    assert invariants.lengths_for(kind, SHAPES[shape].token_parameters).depth == depth


def test_every_invariant_compares_what_differs_in_one_thing() -> None:
    for each in invariants.all_of(invariants.LENGTHS[0]):
        changed = (each.tested.tokens != each.reference.tokens) + (each.tested.depth != each.reference.depth)
        assert each.tested.kind == each.reference.kind
        assert changed == (2 if each.quantity == "memory" else 1)
        assert not each.reference.depth


def test_shorter_lengths_are_shorter_in_all() -> None:
    for longer, shorter in zip(invariants.LENGTHS, invariants.LENGTHS[1:], strict=False):
        assert longer.depth > shorter.depth
        assert (longer.prompt, longer.generated) >= (shorter.prompt, shorter.generated)
