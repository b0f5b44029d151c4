"""Two GPUs of a host under pytest-xdist, in a whole run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("xdist")

if TYPE_CHECKING:
    from tests.conftest import Runs


def spans(record: dict[str, Any], device: str) -> list[tuple[float, float]]:
    """When each case of a device was measured, in the order of time."""
    cases = [one["measured"] for one in record["cases"] if one["case"]["device"] == device]
    starts = [min(run["started"] for run in case["runs"]) for case in cases]
    return sorted((start, start + case["seconds"]) for start, case in zip(starts, cases, strict=True))


def test_two_gpus_are_measured_at_once(runs: Runs) -> None:
    options = ("-n", "2", "--rwkv-device=cuda:0,cuda:1", "--rwkv-report=record.json")
    result = runs.measuring(*options, fault="two-gpus@devices", apart=True)
    assert result.ret == 0, result.stdout.str()
    record = json.loads((runs.pytester.path / "record.json").read_text(encoding="utf-8"))
    ((start, end),), ((other, stop),) = (spans(record, device) for device in ("cuda:0", "cuda:1"))
    assert start < stop
    assert other < end
