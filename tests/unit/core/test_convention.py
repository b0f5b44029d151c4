"""Identifiers of how a speed was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from pytest_rwkvperf.core.cases import ProtocolName
from pytest_rwkvperf.core.convention import NATIVE_WARM_UPS, Convention
from pytest_rwkvperf.worker import native
from tests.unit.building import CASE


@pytest.mark.parametrize("protocol", get_args(ProtocolName))
@pytest.mark.parametrize("backend", [*native.TOOLS, "another"])
def test_identifier_reads_back(backend: str, protocol: ProtocolName) -> None:
    convention = Convention.of_case(replace(CASE, backend=backend, protocol=protocol, chunk=128), 3)
    assert Convention.parse(convention.id) == convention
    assert convention.id.startswith(f"rwkvperf:{protocol}:v3:")
    assert convention.id.endswith(":c128")


def test_every_tool_has_its_warm_up() -> None:
    assert NATIVE_WARM_UPS.keys() == native.TOOLS.keys()


@pytest.mark.parametrize(
    "text",
    [
        "", "rwkvperf", "rwkvperf:uniform:v1:steady", "rwkvperf:uniform:v1:steady:c512:", "rwkvperf:other:v1:steady:c1",
        "rwkvperf:uniform:1:steady:c512", "rwkvperf:uniform:v1:warm:c512", "rwkvperf:uniform:v1:steady:c٣",
        "rwkvperf:uniform:v1:steady:c512\n",
    ],
)  # fmt: skip
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no identifier of a convention"):
        Convention.parse(text)
