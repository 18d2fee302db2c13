"""Reads the pickle in a PyTorch file as data, without running it.

A pickle is a program. This runs the few instructions that describe a dict of tensors, on a machine that has no way
to import or call anything: a name in the pickle stays a name, and the known ones turn into the records below.

Source: the comments of CPython's `Lib/pickletools.py`; PyTorch's `torch/serialization.py` and `torch/_utils.py`.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from .base import FormatError

_LIMIT = 4 << 20  # bytes of one pickle; that of GPT-2 XL takes 70 kB
_LINE_LIMIT = 1024

_STORAGES = {
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.DoubleStorage": "F64",
    "torch.ByteStorage": "U8",
    "torch.CharStorage": "I8",
    "torch.ShortStorage": "I16",
    "torch.IntStorage": "I32",
    "torch.LongStorage": "I64",
    "torch.BoolStorage": "BOOL",
    "torch.ComplexFloatStorage": "C64",
    "torch.ComplexDoubleStorage": "C128",
    "torch.storage.UntypedStorage": "U8",
}
_UNTYPED = {  # dtypes without a storage of their own
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.uint16": "U16",
    "torch.uint32": "U32",
    "torch.uint64": "U64",
}
ITEM_SIZE = {
    **{"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "U8": 1, "I8": 1, "BOOL": 1},
    **{"C128": 16, "C64": 8, "U64": 8, "U32": 4, "U16": 2, "F8_E4M3": 1, "F8_E5M2": 1},
}
"""Bytes of a number of each dtype."""
_REBUILD_PARAMETER = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_REBUILD_UNTYPED = "torch._utils._rebuild_tensor_v3"
_CALLS = ("collections.OrderedDict", "torch._utils._rebuild_tensor_v2", _REBUILD_UNTYPED, *_REBUILD_PARAMETER)
_LITERALS = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
)

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


@dataclass(frozen=True)
class Storage:
    """Consecutive numbers elsewhere in the file."""

    dtype: str  # as safetensors spells it
    key: str
    numel: int


@dataclass(frozen=True)
class View:
    """A tensor as the pickle describes it, not checked yet: a view of a storage, in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    name: str


class _Bounded:
    """A file to `pickletools`, which would otherwise reserve memory for any length that a pickle claims."""

    def __init__(self, file: BinaryIO, n_bytes: int) -> None:
        self.file, self.left = file, n_bytes

    def read(self, n: int) -> bytes:
        data = self.file.read(min(n, self.left))
        self.left -= len(data)
        return data

    def readline(self) -> bytes:
        line = self.file.readline(min(_LINE_LIMIT, self.left))
        self.left -= len(line)
        return line


def load(file: BinaryIO, n_bytes: int, where: str) -> Any:
    """The object that the pickle at the file's position describes; the position ends up behind it.

    Lists, dicts, tuples, strings, numbers, and `View` for a tensor. At most n_bytes belong to the pickle. Raises
    FormatError, beginning with `where`, if it is broken or names anything that a dict of tensors does not need.
    """
    return load_with_storages(file, n_bytes, where)[0]


def load_with_storages(file: BinaryIO, n_bytes: int, where: str) -> tuple[Any, dict[str, Storage]]:
    """As `load`, and the storages of all its tensors by their keys, however deep these lie."""
    stream = cast(BinaryIO, _Bounded(file, min(n_bytes, _LIMIT)))
    machine = _Machine(where)
    try:
        for opcode, arg, _ in pickletools.genops(stream):
            machine.step(opcode.name, arg)
        return machine.stack.pop(), machine.storages
    except FormatError:
        raise
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{where}: broken pickle ({error!s:.80}); fetch the file again") from None


class _Machine:
    """The pickle machine: a stack, the places in it that are marked, and a memo of values used again."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, opcode: str, arg: Any) -> None:
        """Run one instruction; an underflow or a value of the wrong kind raises IndexError, KeyError or TypeError."""
        stack = self.stack
        match opcode:
            case _ if opcode in _LITERALS:
                stack.append(arg)
            case "BINPUT" | "LONG_BINPUT":
                self.memo[arg] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[arg])
            case "MARK":
                self.marks.append(len(stack))
            case _ if opcode in _CONSTANTS:
                stack.append(_CONSTANTS[opcode])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._pop(int(opcode[-1]))))
            case "TUPLE":
                stack.append(tuple(self._pop_marked()))
            case "APPEND" | "APPENDS":
                items = self._pop(1) if opcode == "APPEND" else self._pop_marked()
                self._top(list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._pop(2) if opcode == "SETITEM" else self._pop_marked()
                self._set_items(items)
            case "GLOBAL":
                stack.append(self._name(arg.replace(" ", ".", 1)))  # pickletools puts the blank
            case "STACK_GLOBAL":
                stack.append(self._name(".".join(self._pop(2))))
            case "BINPERSID":
                storage = _storage(*self._pop(1))
                self.storages[storage.key] = storage
                stack.append(storage)
            case "REDUCE":
                stack.append(self._build(*self._pop(2)))
            case "BUILD":  # the versions of modules, which a state dict carries as an attribute
                self._pop(1)
                self._top(dict)
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise FormatError(f"{self.where}: pickle instruction {opcode}, which a dict of tensors does not need")

    def _pop(self, n: int) -> list[Any]:
        first = len(self.stack) - n
        if not 0 <= first <= len(self.stack):
            raise IndexError("the stack is empty")
        items = self.stack[first:]
        del self.stack[first:]
        return items

    def _pop_marked(self) -> list[Any]:
        return self._pop(len(self.stack) - self.marks.pop())

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise TypeError(f"expected a {kind.__name__}, found {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def _set_items(self, items: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):  # to hash a tuple of tuples of ... takes forever
                raise TypeError(f"a key is a {type(key).__name__}")
            target[key] = value

    def _name(self, name: str) -> _Name:
        if name not in _STORAGES and name not in _UNTYPED and name not in _CALLS:
            raise FormatError(
                f"{self.where}: the pickle asks for {name:.80}, which a dict of tensors does not need; "
                "it may be hostile, and nothing of it was run: save model.state_dict() alone"
            )
        return _Name(name)

    def _build(self, function: Any, args: Any) -> Any:
        """The result that a call of a known function would have."""
        if not isinstance(function, _Name) or type(args) is not tuple:
            raise TypeError("a call of what is no function")
        if function.name == "collections.OrderedDict" and not args:
            return {}
        if function.name == "torch._utils._rebuild_tensor_v2":
            return View(*args[:4])  # then requires_grad, hooks and metadata, which weights do without
        if function.name == _REBUILD_UNTYPED and isinstance(args[0], Storage) and isinstance(args[6], _Name):
            return View(_typed(args[0], _UNTYPED[args[6].name]), *args[1:4])
        if function.name in _REBUILD_PARAMETER and isinstance(args[0], View):
            return args[0]  # then requires_grad, hooks and attributes
        raise TypeError(f"{function.name} called with {len(args)} arguments of other kinds than PyTorch writes")


def _typed(storage: Storage, dtype: str) -> Storage:
    """The bytes of a storage as numbers."""
    return Storage(dtype, storage.key, storage.numel // ITEM_SIZE[dtype])


def _storage(persistent_id: Any) -> Storage:
    """From ("storage", type, key, location, number of elements), in old files followed by a view of another storage."""
    kind, storage_type, key, _, numel, *view = persistent_id
    dtype = _STORAGES.get(storage_type.name) if isinstance(storage_type, _Name) else None
    if kind != "storage" or dtype is None or type(key) is not str or type(numel) is not int or view not in ([], [None]):
        raise TypeError("a reference that is no storage of tensors")
    return Storage(dtype, key, numel)
