"""Reads the tensor list from a `.pth` file's pickle without running it, before torch unpickles anything.

`pickletools.genops`, which only decodes, walks the pickle over a stack of plain values. Only the few opcodes, globals
and call shapes that `torch.save` needs for a dictionary of tensors are allowed. Scanners were considered: picklescan
(1.0) sorts imports by lists of safe and dangerous names, and fickling (0.1) judges the decompiled program by
heuristics. Both find what is known to be bad; an allow-list is shorter and stricter, and also gives names and shapes.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pytest_rwkvperf.models.model import Precision

MAX_PICKLE_BYTES = 4 << 20
"""Bytes. The largest public model's pickle has 0.4 MB: it holds names and numbers only."""

_MAX_DIMENSIONS = 8
_OBJECT_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_STORAGES: Mapping[str, Precision] = MappingProxyType(
    {"torch BFloat16Storage": "bf16", "torch HalfStorage": "f16", "torch FloatStorage": "f32"}
)
_OTHER_STORAGES = frozenset(
    f"torch {kind}Storage" for kind in ("Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
)
_NEWER_TENSOR = "torch._utils _rebuild_tensor_v3"
"""What torch writes for types that have no storage class of their own: float8 and unsigned integers."""

_CONVERTED = ("_strategy", "_version")
"""Entries that the rwkv package adds where it converts a model (`convert_and_save_and_exit`)."""

_SAVE_ALONE = "torch.save(torch.load(FILE, weights_only=True)[{!r}], NEW)"

_PROTOCOL = 2
"""The pickle protocol that `torch.save` writes unless it is told another."""

_GLOBALS = frozenset({_OBJECT_DICT, _TENSOR, _PARAMETER, *_STORAGES, *_OTHER_STORAGES})


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as the pickle describes it: `offset` and `count` are in values of the storage `data/<storage>`."""

    shape: tuple[int, ...]
    precision: Precision
    storage: str
    offset: int
    count: int


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    precision: Precision
    key: str
    count: int


_WEIGHTS_OF_CHECKPOINTS = ("state_dict", "model_state_dict", "module", "model")


class _UnknownGlobalError(ModelError):
    """The pickle asks for a global that weights never need."""


class _Mark:
    """Where a tuple's or a dictionary's items begin on the stack."""


def tensors(data: bytes) -> dict[str, StoredTensor]:
    """The tensors by name of a pickle that torch wrote for a dictionary of tensors.

    Raises:
        ModelError: it is anything else; the message names the opcode, the global or the entry.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise ModelError(f"its pickle has {len(data)} bytes, more than any model's ({MAX_PICKLE_BYTES} at most)")
    result = _Reader().run(data)
    if not isinstance(result, dict):
        raise ModelError(f"it holds {_kind(result)}, expected a dictionary of tensors")
    if converted := next((name for name in _CONVERTED if name in result), None):
        raise ModelError(
            f"the rwkv package converted it for one strategy (its entry {converted!r}); give the original .pth"
        )
    _check_nested(result)
    for name, value in result.items():
        if not isinstance(value, StoredTensor):
            raise ModelError(f"its entry {name!r} is {_kind(value)}, expected a tensor")
    return result


def _check_nested(result: dict[str, object]) -> None:
    """Refuse a training checkpoint, which holds the weights below a name."""
    for name, value in result.items():
        if isinstance(value, dict) and any(isinstance(each, StoredTensor) for each in value.values()):
            raise ModelError(f"it is a training checkpoint; save its {name!r} alone: {_SAVE_ALONE.format(name)}")


class _Reader:
    """The allowed opcodes on a stack of plain values; nothing that the pickle names is imported or called."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._texts: set[str] = set()

    def run(self, data: bytes) -> object:
        """The object that the pickle leaves on the stack."""
        for name, argument, end in _operations(data):
            if name == "STOP":
                if end != len(data):
                    raise ModelError(f"{len(data) - end} bytes follow its pickle's end; torch writes none")
                return self._pop()
            action = _ACTIONS.get(name)
            if action is None:
                raise ModelError(f"its pickle uses the opcode {name}, which weights never need; it may run code")
            try:
                action(self, argument)
            except _UnknownGlobalError as error:
                raise ModelError(f"{error}{self._checkpoint()}") from None
        raise ModelError("its pickle has no end; it is truncated")

    def _checkpoint(self) -> str:
        """What to do where the pickle names the weights of a training checkpoint before what is not understood."""
        known = next((name for name in _WEIGHTS_OF_CHECKPOINTS if name in self._texts), None)
        return "" if known is None else f". If it is a training checkpoint: {_SAVE_ALONE.format(known)}"

    def _pop(self) -> Any:  # noqa: ANN401 - whatever the pickle put there
        if not self._stack:
            raise ModelError("its pickle takes from an empty stack; it is damaged")
        return self._stack.pop()

    def check_protocol(self, protocol: int) -> None:
        """Only torch's own protocol, whose opcodes these are."""
        if protocol != _PROTOCOL:
            raise ModelError(
                f"its pickle has protocol {protocol}, which torch.save never writes by itself (it writes {_PROTOCOL});"
                " whoever made it can save it again without pickle_protocol="
            )

    def append(self, _argument: object) -> None:
        """One value to the list below it."""
        value = self._pop()
        self._extend([value])

    def append_all(self, _argument: object) -> None:
        """All values since the mark to the list below it."""
        self._extend(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1] if self._stack else None
        if not isinstance(target, list):
            raise ModelError("its pickle appends to something that is not a list; it is damaged")
        target.extend(values)

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        if isinstance(value, str):
            self._texts.add(value)
        self._stack.append(value)

    def memoize(self, slot: int) -> None:
        """Keep the top of the stack in the memo."""
        if not self._stack:
            raise ModelError("its pickle memoizes an empty stack; it is damaged")
        self._memo[slot] = self._stack[-1]

    def recall(self, slot: int) -> None:
        """Put a value of the memo on the stack."""
        if slot not in self._memo:
            raise ModelError(f"its pickle recalls what it never kept ({slot}); it is damaged")
        self.push(self._memo[slot])

    def push_global(self, argument: str) -> None:
        """A global, by `module name`."""
        if argument == _NEWER_TENSOR:
            raise ModelError(
                "it holds float8 values, or others that no RWKV-7 is trained in; give the original .pth in bfloat16, "
                "float16 or float32"
            )
        if argument not in _GLOBALS:
            raise _UnknownGlobalError(
                f"its pickle asks for {argument.replace(' ', '.')!r}, which weights never need; it may run code, so it"
                " is not loaded"
            )
        self.push(_Global(argument))

    def collect(self, _argument: object = None) -> None:
        """Everything since the last mark, as a tuple."""
        self.push(tuple(self._since_mark()))

    def collect_last(self, count: int) -> None:
        """The last `count` values as a tuple."""
        values = [self._pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def _since_mark(self) -> list[Any]:
        values: list[Any] = []
        while not isinstance(value := self._pop(), _Mark):
            values.append(value)
        values.reverse()
        return values

    def storage(self, _argument: object) -> None:
        """`('storage', kind, key, location, count)`."""
        match self._pop():
            case ("storage", _Global(name=kind), str(key), str(), int(count)) if count >= 0:
                if kind not in _STORAGES:
                    what = kind.removeprefix("torch ").removesuffix("Storage").lower()
                    raise ModelError(f"it holds {what} values; RWKV-7 weights are bfloat16, float16 or float32")
                self.push(_Storage(_STORAGES[kind], key, count))
            case other:
                raise ModelError(f"its pickle's reference to a storage is malformed ({_kind(other)})")

    def call(self, _argument: object) -> None:
        """One of three calls, each of a known shape."""
        arguments, function = self._pop(), self._pop()
        match function, arguments:
            case _Global(name=name), () if name == _OBJECT_DICT:
                self.push({})
            case _Global(name=name), (
                _Storage() as storage,
                int(offset),
                tuple(shape),
                tuple(stride),
                _,
                dict(hooks),
            ) if name == _TENSOR and not hooks:
                self.push(_tensor(storage, offset, shape, stride))
            case _Global(name=name), (StoredTensor() as tensor, bool(), dict(hooks)) if (
                name == _PARAMETER and not hooks
            ):
                self.push(tensor)
            case _:
                what = function.name.replace(" ", ".") if isinstance(function, _Global) else _kind(function)
                raise ModelError(f"its pickle calls {what} in a way that torch.save never writes; it is not loaded")

    def set_item(self, _argument: object) -> None:
        """One item into the dictionary below it."""
        value, key = self._pop(), self._pop()
        self._fill([key, value])

    def set_items(self, _argument: object) -> None:
        """All items since the mark into the dictionary below it."""
        self._fill(self._since_mark())

    def _fill(self, items: list[Any]) -> None:
        target = self._stack[-1] if self._stack else None
        if not isinstance(target, dict) or len(items) % 2:
            raise ModelError("its pickle adds items to something that is not a dictionary; it is damaged")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise ModelError(f"its dictionary has a key that is {_kind(key)}, expected a tensor's name")
            target[key] = value

    def build(self, _argument: object) -> None:
        """Attributes of an ordered dictionary: only a module's `_metadata` is allowed, and ignored."""
        state = self._pop()
        if not isinstance(state, dict) or set(state) != {"_metadata"} or not self._stack or self._stack[-1] is state:
            raise ModelError("its pickle sets attributes that weights never have; it is not loaded")
        if not isinstance(self._stack[-1], dict):
            raise ModelError("its pickle sets attributes of something that is not a dictionary; it is not loaded")


def _operations(data: bytes) -> Iterator[tuple[str, Any, int]]:
    """Opcode name, argument and the position behind the opcode's first byte."""
    try:
        for operation, argument, position in pickletools.genops(data):
            yield operation.name, argument, (position or 0) + 1
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - the decoder raises many kinds of errors
        raise ModelError(f"its pickle cannot be decoded ({error}); it is damaged") from None


def _tensor(storage: _Storage, offset: int, shape: tuple[Any, ...], stride: tuple[Any, ...]) -> StoredTensor:
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or len(shape) > _MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in numbers):
        raise ModelError(f"its pickle describes a tensor of shape {list(shape)[:9]} and stride {list(stride)[:9]}")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if prod(shape) > storage.count or (prod(shape) and last >= storage.count):
        raise ModelError(
            f"its pickle describes a tensor of shape {list(shape)} in a storage of {storage.count} values;"
            " it is damaged"
        )
    return StoredTensor(shape, storage.precision, storage.key, offset, storage.count)


def _kind(value: object) -> str:
    names = {dict: "a dictionary", tuple: "a tuple", list: "a list", str: "text", int: "a number", float: "a number"}
    if isinstance(value, _Global):
        return value.name.replace(" ", ".")
    return names.get(type(value), "a tensor" if isinstance(value, StoredTensor) else type(value).__name__.strip("_"))


def _pushing(make: Callable[[Any], object]) -> Callable[[_Reader, Any], None]:
    return lambda reader, argument: reader.push(make(argument))


_ACTIONS: Mapping[str, Callable[[_Reader, Any], None]] = MappingProxyType(
    {
        "PROTO": _Reader.check_protocol,
        "MARK": _pushing(lambda _: _Mark()),
        "NONE": _pushing(lambda _: None),
        "NEWTRUE": _pushing(lambda _: True),
        "NEWFALSE": _pushing(lambda _: False),
        **dict.fromkeys(
            ("BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "BINUNICODE", "SHORT_BINUNICODE"),
            _pushing(lambda value: value),
        ),
        "EMPTY_DICT": _pushing(lambda _: {}),
        "EMPTY_LIST": _pushing(lambda _: []),
        "APPEND": _Reader.append,
        "APPENDS": _Reader.append_all,
        "EMPTY_TUPLE": _pushing(lambda _: ()),
        "TUPLE": _Reader.collect,
        "TUPLE1": lambda reader, _: reader.collect_last(1),
        "TUPLE2": lambda reader, _: reader.collect_last(2),
        "TUPLE3": lambda reader, _: reader.collect_last(3),
        "BINPUT": _Reader.memoize,
        "LONG_BINPUT": _Reader.memoize,
        "BINGET": _Reader.recall,
        "LONG_BINGET": _Reader.recall,
        "GLOBAL": _Reader.push_global,
        "BINPERSID": _Reader.storage,
        "REDUCE": _Reader.call,
        "SETITEM": _Reader.set_item,
        "SETITEMS": _Reader.set_items,
        "BUILD": _Reader.build,
    }
)
