from __future__ import annotations

import pickle
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import pth, pth_pickle
from pytest_rwkvperf.models.layouts import pth_layout
from pytest_rwkvperf.models.shapes import SHAPES

if TYPE_CHECKING:
    from pytest_rwkvperf.models.synthetic import SyntheticModel

GOOD = pth._pickle(pth_layout(SHAPES["nano"], "bf16"))


def text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value)) + value.encode()


def named(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def tensor(
    kind: str = "HalfStorage", count: bytes = b"K\x04", size: bytes = b"K\x02K\x02", stride: bytes = b"K\x02K\x01"
) -> bytes:
    """The call that rebuilds one tensor."""
    storage = b"((" + text("storage") + named("torch", kind) + text("0") + text("cpu") + count + b"tQ"
    hooks = named("collections", "OrderedDict") + b")R"
    return (
        named("torch._utils", "_rebuild_tensor_v2")
        + storage
        + b"K\x00("
        + size
        + b"t("
        + stride
        + b"t\x89"
        + hooks
        + b"tR"
    )


def holding(value: bytes, name: str = "w") -> bytes:
    """A dictionary of one entry."""
    return b"\x80\x02}" + text(name) + value + b"s."


NUMBER = b"G" + bytes(8)


def test_what_this_project_writes_is_read_back(model: SyntheticModel) -> None:
    layout = pth_layout(model.shape, "bf16")
    tensors = pth_pickle.tensors(pth._pickle(layout))
    assert {name: tensor.shape for name, tensor in tensors.items()} == {entry.name: entry.shape for entry in layout}
    assert {tensor.precision for tensor in tensors.values()} == {"bf16"}


def test_one_tensor() -> None:
    assert pth_pickle.tensors(holding(tensor())) == {"w": pth_pickle.StoredTensor((2, 2), "f16", "0", 0, 4)}


class Runs:
    """Unpickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def hostile() -> list[bytes]:
    import os

    calls = [
        Runs(os.system, "true"),
        Runs(eval, "1"),
        Runs(exec, "1"),
        Runs(pickle.loads, pickle.dumps(Runs(eval, "1"))),
    ]
    made = [pickle.dumps(value, protocol) for value in calls for protocol in range(6)]
    made += [pickle.dumps({"w": value}, protocol) for value in calls for protocol in (0, 2, 4)]
    return made


@pytest.mark.parametrize("data", hostile())
def test_pickles_that_call_something_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"never need|never writes"):
        pth_pickle.tensors(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (holding(named("builtins", "eval") + b"(" + text("1") + b"tR"), "'builtins.eval'"),
        (holding(named("torch", "load") + b"(" + text("x") + b"tR"), "'torch.load'"),
        (holding(named("torch.storage", "_load_from_bytes") + b"(" + text("x") + b"tR"), "_load_from_bytes"),
        (holding(b"cos\nsystem\n(" + text("x") + b"tR"), "'os.system'"),
        (holding(b"(ios\nsystem\n"), "INST"),
        (holding(b"\x82\x01"), "EXT1"),
        (holding(named("collections", "OrderedDict") + b")\x81"), "NEWOBJ"),
        (holding(named("collections", "OrderedDict") + b"(" + text("x") + b"tR"), "collections.OrderedDict in a way"),
        (holding(text("os") + text("system") + b"\x93"), "STACK_GLOBAL"),
        (holding(tensor()) + b"cos\nsystem\n.", "follow its pickle's end"),
        (holding(tensor())[:-1], "cannot be decoded|no end"),
        (b"", "cannot be decoded|no end"),
        (b"\x80\x02].", "holds a list"),
        (b"\x80\x02}K\x01a.", "not a list"),
        (b"\x80\x04}.", "protocol 4, which torch.save never writes by itself .*without pickle_protocol="),
        (holding(NUMBER, "_version"), "rwkv package converted it .*'_version'.*original .pth"),
        (holding(b"}" + text("x") + tensor() + b"s", "state_dict"), r"training checkpoint.*FILE, .*\['state_dict'\]"),
        (holding(b"]" + NUMBER + b"a", "lr"), "'lr' is a list"),
        (holding(b"}" + text("state_dict") + named("my", "Trainer") + b"s"), r"'my.Trainer'.*\['state_dict'"),
        (holding(named("torch._utils", "_rebuild_tensor_v3")), "float8 .*give the original .pth"),
        (b"\x80\x02).", "tuple, expected a dictionary"),
        (holding(text("no tensor")), "'w' is text"),
        (holding(named("torch", "HalfStorage")), "'w' is torch.HalfStorage"),
        (b"\x80\x02}K\x01" + tensor() + b"s.", "key that is a number"),
        (holding(tensor("LongStorage")), "long values"),
        (holding(tensor(count=b"K\x03")), "storage of 3 values"),
        (holding(tensor(stride=b"K\x09K\x01")), "storage of 4 values"),
        (holding(tensor(size=b"J\xff\xff\xff\xffK\x02")), "shape"),
        (holding(tensor(size=b"K\x02")), "shape"),
        (b"\x80\x02s.", "empty stack"),
        (b"\x80\x02h\x07.", "never kept"),
        (b"\x80\x02t.", "empty stack"),
        (b"\x80\x02}}b.", "attributes"),
        (b"\x80\x02" + text("a") * 10 + b".", "holds text"),
        (bytes(pth_pickle.MAX_PICKLE_BYTES + 1), "bytes"),
    ],
)
def test_what_torch_never_writes_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        pth_pickle.tensors(data)


def test_a_modules_state_may_carry_its_metadata() -> None:
    made = named("collections", "OrderedDict") + b")R" + text("w") + tensor() + b"s"
    state = b"}" + text("_metadata") + named("collections", "OrderedDict") + b")Rs"
    assert set(pth_pickle.tensors(b"\x80\x02" + made + state + b"b.")) == {"w"}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_pickles_are_an_error_or_tensors(data: st.DataObject) -> None:
    raw = bytearray(GOOD[:3000])
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        tensors = pth_pickle.tensors(bytes(raw) + pickle.SETITEMS + pickle.STOP)
    except ModelError:
        return
    assert all(isinstance(value, pth_pickle.StoredTensor) for value in tensors.values())


def test_the_largest_public_shapes_pickle_is_far_below_the_limit() -> None:

    assert len(pth._pickle(pth_layout(SHAPES["13.3b"], "bf16"))) < pth_pickle.MAX_PICKLE_BYTES / 8
