"""`adapters()` and what the module says about itself."""

import importlib.metadata
import re
from pathlib import Path

import pytest
import rwkvperf_web_rwkv as binding

BACKENDS = ["vulkan", "metal", "dx12", "gl"]
KINDS = {"discrete-gpu", "integrated-gpu", "virtual-gpu", "cpu", "other"}


def test_version_is_the_installed_distribution_s() -> None:
    assert binding.__version__ == importlib.metadata.version("rwkvperf-web-rwkv")


def test_engine_version_is_the_locked_one() -> None:
    lock = (Path(__file__).parents[1] / "Cargo.lock").read_text(encoding="utf-8")
    locked = re.search(r'name = "web-rwkv"\nversion = "([^"]+)"', lock)
    assert locked
    assert locked[1] == binding.WEB_RWKV_VERSION


def test_index_is_the_position(adapter: int) -> None:
    found = binding.adapters()
    assert [each.index for each in found] == list(range(len(found)))
    assert adapter in range(len(found))


@pytest.mark.usefixtures("adapter")
def test_interfaces_come_in_the_documented_order() -> None:
    backends = [BACKENDS.index(each.backend) for each in binding.adapters()]
    assert backends == sorted(backends)


@pytest.mark.usefixtures("adapter")
def test_attributes_are_of_the_documented_kind() -> None:
    for each in binding.adapters():
        assert each.name
        assert each.kind in KINDS
        assert isinstance(each.driver, str)
        assert isinstance(each.driver_info, str)
        assert isinstance(each.vendor, int)
        assert isinstance(each.device, int)
        assert each.pci_bus_id is None or re.fullmatch(r"[\da-f:.]+", each.pci_bus_id, re.IGNORECASE)


def test_the_list_is_stable_and_adapters_are_values(adapter: int) -> None:
    first, second = binding.adapters(), binding.adapters()
    assert first == second
    assert {hash(each) for each in first} == {hash(each) for each in second}
    assert len(set(first)) == len(first)
    with pytest.raises(AttributeError):
        first[adapter].name = "another"  # type: ignore[misc]
    assert first[adapter].name in repr(first[adapter])
