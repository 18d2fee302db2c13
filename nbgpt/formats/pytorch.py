"""`pytorch_model.bin`, both layouts of `torch.save`, without torch.

The zip layout (torch >= 1.6) is an archive of stored members: `NAME/data.pkl`, and `NAME/data/KEY` for each storage.
The older one is a sequence of pickles (a magic number, a version, the writer's types, the object, the keys of the
storages), then for each key the number of elements in 8 bytes and the elements.

Source: PyTorch's `torch/serialization.py`, `_save` and `_legacy_save`.
"""

from __future__ import annotations

import struct
import zipfile
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from . import pickles
from .base import FormatError, listed
from .pickles import ITEM_SIZE, View
from .stored import Stored, open_weights

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_MAX_DIMS = 8
_CONTAINERS = ("model", "state_dict", "model_state_dict", "module")  # keys of the model in a training checkpoint
_MAX_NESTED = 4

Places = dict[str, tuple[int, int]]
"""Where each storage lies: key -> first byte of the file, number of bytes."""


class Saved(NamedTuple):
    """An object that `torch.save` has saved."""

    values: dict[Any, Any]  # all of it, with a `View` for a tensor
    tensors: dict[str, Stored]  # those of the dict, or of the model in it, under the names that they have there


def read_tensors(path: Path) -> dict[str, Stored]:
    """The tensors of a saved dict, or of the model in a training checkpoint. Raises FormatError."""
    return read_saved(path).tensors


def read_saved(path: Path) -> Saved:
    """A saved dict; its tensors are known to lie within the file. Raises FormatError."""
    with open_weights(path) as (file, size):
        start = file.read(4)
        file.seek(0)
        if start == b"PK\x03\x04":
            state, places = _read_zip(path, file, size)
        elif start[:1] == b"\x80":
            state, places = _read_legacy(path, file, size)
        else:
            raise FormatError(
                f"{path}: begins with {start!r}; expected a file of torch.save, a zip archive or a pickle"
            )
    if not isinstance(state, dict):
        raise FormatError(f"{path}: holds a {type(state).__name__}; expected a dict of tensors")
    views = {name: view for name, view in _model_in(state).items() if isinstance(name, str) and isinstance(view, View)}
    if not views:
        keys = [key for key in state if isinstance(key, str)]
        raise FormatError(
            f"{path}: no tensors in it, but {listed(keys) or 'nothing'}; expected a dict of tensors, or one within as "
            f"{' or '.join(_CONTAINERS)}: save model.state_dict() alone"
        )
    return Saved(state, {name: _place(path, name, view, places) for name, view in views.items()})


def _model_in(saved: dict[Any, Any]) -> dict[Any, Any]:
    """The state dict of the model: the saved dict itself, or one within, as trainers keep it beside the optimizer's."""
    for _ in range(_MAX_NESTED):  # a hostile one may hold itself
        inner = next((saved[key] for key in _CONTAINERS if isinstance(saved.get(key), dict)), None)
        if inner is None:
            break
        saved = inner
    return saved


def _read_zip(path: Path, file: BinaryIO, size: int) -> tuple[Any, Places]:
    members = _members(path, file, size)
    pickled = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickled) != 1:
        raise FormatError(f"{path}: expected one data.pkl in the archive, found {len(pickled)}; is it of torch.save?")
    root = pickled[0].removesuffix("data.pkl")
    if f"{root}byteorder" in members:
        start, n = members[f"{root}byteorder"]
        file.seek(start)
        if (order := file.read(min(n, 16))) != b"little":
            raise FormatError(f"{path}: byte order {order!r}; nbgpt reads little-endian files")
    start, n = members[pickled[0]]
    file.seek(start)
    state = pickles.load(file, n, f"{path}: data.pkl")
    data = f"{root}data/"
    return state, {name.removeprefix(data): place for name, place in members.items() if name.startswith(data)}


def _members(path: Path, file: BinaryIO, size: int) -> Places:
    """Where the members of a zip archive lie. Raises FormatError if one is compressed or reaches past the end."""
    try:
        infos = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error, OverflowError) as error:
        raise FormatError(f"{path}: broken zip archive ({error}); is the file cut short? fetch it again") from None
    members: Places = {}
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise FormatError(f"{path}: {info.filename!r:.80} is compressed or encrypted; torch.save only stores")
        local = b""
        if 0 <= info.header_offset < size:
            file.seek(info.header_offset)
            local = file.read(30)
        if len(local) < 30 or not local.startswith(b"PK\x03\x04"):
            raise FormatError(f"{path}: {info.filename!r:.80} is not where the archive says; fetch the file again")
        n_name, n_extra = struct.unpack_from("<HH", local, 26)
        start = info.header_offset + 30 + n_name + n_extra
        if start + info.file_size > size:
            raise FormatError(f"{path}: {info.filename!r:.80} ends past the end of the file; fetch the file again")
        if info.filename in members:
            raise FormatError(f"{path}: {info.filename!r:.80} is in the archive twice")
        members[info.filename] = (start, info.file_size)
    return members


def _read_legacy(path: Path, file: BinaryIO, size: int) -> tuple[Any, Places]:
    def load(what: str) -> Any:
        return pickles.load(file, size - file.tell(), f"{path}: {what}")

    if load("magic number") != _MAGIC or load("version") != _VERSION:
        raise FormatError(f"{path}: a pickle, but not one of torch.save in version {_VERSION}")
    system = load("system")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise FormatError(f"{path}: not written in little-endian byte order, the only one that nbgpt reads")
    state, storages = pickles.load_with_storages(file, size - file.tell(), f"{path}: tensors")
    places: Places = {}
    keys = load("keys of the storages")
    for key in keys if isinstance(keys, list) else ():
        if not isinstance(key, str):  # not shown: written out, a list that holds itself twice over never ends
            raise FormatError(f"{path}: the key of a storage is a {type(key).__name__}; fetch the file again")
        storage = storages.get(key)
        if storage is None or key in places:
            raise FormatError(f"{path}: storage {key!r:.40} belongs to no tensor; expected a plain dict of tensors")
        numel, start = int.from_bytes(file.read(8), "little"), file.tell()
        n = numel * ITEM_SIZE[storage.dtype]
        if numel != storage.numel or start + n > size:
            raise FormatError(
                f"{path}: storage {key} claims {numel} elements, its tensors {storage.numel}, and {size - start} bytes "
                "are left; is the file cut short? fetch it again"
            )
        places[key] = (start, n)
        file.seek(start + n)
    return state, places


def _place(path: Path, name: str, view: View, places: Places) -> Stored:
    """The place of a tensor in the file. Raises FormatError if it exceeds its storage or overlaps itself."""
    storage, offset, shape, strides = view.storage, view.offset, view.shape, view.strides
    if not isinstance(storage, pickles.Storage) or storage.key not in places:
        raise FormatError(f"{path}: {name} lies in a storage that the file does not have; fetch the file again")
    if not _are_sizes((storage.numel, offset)) or not _are_sizes(shape, strides) or len(shape) != len(strides):
        raise FormatError(f"{path}: {name} has no valid shape; fetch the file again")
    start, n_bytes = places[storage.key]
    item_size = ITEM_SIZE[storage.dtype]
    steps = list(zip(shape, strides, strict=True))
    end = offset + (1 + sum((n - 1) * stride for n, stride in steps) if all(shape) else 0)
    if end > storage.numel or prod(shape) > storage.numel or storage.numel * item_size > n_bytes:
        raise FormatError(
            f"{path}: {name} {list(shape)} does not fit into its storage of {storage.numel} {storage.dtype} "
            f"in {n_bytes} bytes; fetch the file again"
        )
    in_order = all(n == 1 or stride == prod(shape[i + 1 :]) for i, (n, stride) in enumerate(steps))
    return Stored(path, name, storage.dtype, shape, start + offset * item_size, None if in_order else strides)


def _are_sizes(*values: Any) -> bool:
    """Whether each is a tuple of few numbers that an offset into a file can be made of."""
    return all(
        type(value) is tuple and len(value) <= _MAX_DIMS and all(type(n) is int and 0 <= n < 1 << 63 for n in value)
        for value in values
    )
