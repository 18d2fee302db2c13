"""`pytorch_model.bin` in both layouts, against files that real torch wrote (tests/fixtures/make_pytorch.py)."""

import io
import json
import os
import pickle
import shutil
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbgpt.formats import FormatError, open_checkpoint
from nbgpt.formats.pytorch import read_tensors

FIXTURES = Path(__file__).parents[1] / "fixtures/pytorch"
EXPECTED = dict(np.load(FIXTURES / "expected.npz"))
VIEWS = dict(np.load(FIXTURES / "views.npz"))
MODELS = ("zip-float32", "legacy-float32", "legacy-bfloat16", "zip-bfloat16", "sharded-float16")
MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


@pytest.mark.parametrize("name", MODELS)
def test_files_of_torch(name):
    checkpoint = open_checkpoint(FIXTURES / name)
    assert checkpoint.config.tied_embeddings
    assert checkpoint.tensors.keys() == EXPECTED.keys()
    for key, tensor in checkpoint.tensors.items():
        values = tensor.read()
        assert values.dtype == (np.float16 if name.endswith("float16") and "bf" not in name else np.float32)
        np.testing.assert_array_equal(values, EXPECTED[key], err_msg=key, strict=False)


def test_fixtures_hold_what_they_should():
    assert "lm_head.weight" in read_tensors(FIXTURES / "zip-float32/pytorch_model.bin")
    assert {"h.0.attn.bias", "h.1.attn.masked_bias"} <= read_tensors(
        FIXTURES / "legacy-float32/pytorch_model.bin"
    ).keys()
    assert len(open_checkpoint(FIXTURES / "sharded-float16").files) == 2


@pytest.mark.parametrize("layout", ["zip", "legacy", "protocol-4"])
def test_views_of_storages(layout):
    tensors = read_tensors(FIXTURES / f"views-{layout}.bin")
    assert tensors.keys() == VIEWS.keys()
    for name, stored in tensors.items():
        values = stored.tensor().read()
        assert values.dtype == np.float32
        assert values.flags.c_contiguous
        np.testing.assert_array_equal(values, VIEWS[name].astype(np.float32), err_msg=name, strict=True)


@contextmanager
def peak_below(limit):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


class Call:
    """Pickles as a call, or as a reference to a storage, of whatever it is given."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


class Name:
    """Pickles as a global by its name."""

    def __init__(self, name):
        self.module, self.name = name.rsplit(".", 1)


class Pickler(pickle._Pickler):
    """Python's own pickler, with names that need not exist and persistent ids as tuples."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_call(self, call):
        self.save(call.function)
        self.save(call.args)
        self.write(pickle.REDUCE)

    def save_name(self, name):
        self.write(pickle.GLOBAL + f"{name.module}\n{name.name}\n".encode())

    def persistent_id(self, value):
        return value[1:] if isinstance(value, tuple) and value[:1] == ("persistent",) else None

    dispatch[Call] = save_call
    dispatch[Name] = save_name


def pickled(value, protocol=2):
    stream = io.BytesIO()
    Pickler(stream, protocol).dump(value)
    return stream.getvalue()


def tensor(shape=(2, 3), strides=(3, 1), offset=0, numel=6, key="0", storage="torch.FloatStorage", kind="storage"):
    reference = ("persistent", kind, Name(storage), key, "cpu", numel)
    return Call(Name("torch._utils._rebuild_tensor_v2"), reference, offset, shape, strides, False, Call(OrderedDict))


def write_zip(path, pickle_bytes, data=bytes(24), method=zipfile.ZIP_STORED, **more):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("m/data.pkl", pickle_bytes)
        archive.writestr("m/data/0", data)
        for name, content in more.items():
            archive.writestr(f"m/{name}", content)
    return path


def write_legacy(path, pickle_bytes, keys=("0",), numel=6, data=bytes(24), magic=MAGIC, version=1001, system=SYSTEM):
    head = b"".join(pickled(value) for value in (magic, version, system))
    path.write_bytes(head + pickle_bytes + pickled(list(keys)) + struct.pack("<Q", numel) + data)
    return path


def write_state(path, state, legacy=False):
    """As torch.save: arrays become tensors, each with a storage of its own, wherever they stand in dicts."""
    arrays = []

    def tensors_for(value):
        if isinstance(value, dict):
            return {key: tensors_for(item) for key, item in value.items()}
        if not isinstance(value, np.ndarray):
            return value
        arrays.append(value)
        strides = tuple(stride // value.itemsize for stride in value.strides)
        return tensor(value.shape, strides, numel=value.size, key=str(len(arrays) - 1))

    data = pickled(tensors_for(state))
    if not legacy:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/data.pkl", data)
            for number, array in enumerate(arrays):
                archive.writestr(f"m/data/{number}", array.tobytes())
        return path
    head = b"".join(pickled(value) for value in (MAGIC, 1001, SYSTEM))
    parts = [struct.pack("<Q", array.size) + array.tobytes() for array in arrays]
    path.write_bytes(head + data + pickled([str(number) for number in range(len(arrays))]) + b"".join(parts))
    return path


CONTAINERS = {
    "{'model': ...}": lambda state: {"model": state, "iter_num": 1},
    "{'state_dict': ...}": lambda state: {"state_dict": state, "epoch": 3, "loss": 0.5},
    "{'model_state_dict': ...}": lambda state: {
        "model_state_dict": state,
        "optimizer": {0: {"exp_avg": np.ones(3, "f4")}},
    },
    "DeepSpeed": lambda state: {"module": {f"module.{name}": values for name, values in state.items()}, "ds": None},
    "Lightning": lambda state: {"state_dict": {f"model._orig_mod.{name}": values for name, values in state.items()}},
    "two of them": lambda state: {"optimizer": {"a": np.ones(2, "f4")}, "state_dict": {"model": state}},
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_training_checkpoints_are_looked_through(tmp_path, container, name, legacy):
    shutil.copy(FIXTURES / "zip-float32/config.json", tmp_path)
    write_state(tmp_path / name, container(EXPECTED), legacy)
    found = open_checkpoint(tmp_path / name).tensors
    assert found.keys() == EXPECTED.keys()
    for key, values in EXPECTED.items():
        np.testing.assert_array_equal(found[key].read(), values, err_msg=key)


def test_a_checkpoint_that_holds_itself(tmp_path):
    itself = {}
    itself["model"] = itself
    with pytest.raises(FormatError, match="no tensors in it, but 'model'; expected a dict of tensors, or one"):
        read_tensors(write_zip(tmp_path / "a.pt", pickled(itself)))


def test_the_state_of_a_parameter_is_ignored(tmp_path):
    parameter = Call(
        Name("torch._utils._rebuild_parameter_with_state"),
        tensor(),
        True,
        Call(OrderedDict),
        {"_is_hf_initialized": True},
    )
    numbers = np.arange(6, dtype=np.float32)
    path = write_zip(tmp_path / "a.bin", pickled({"a": parameter}), numbers.tobytes())
    np.testing.assert_array_equal(read_tensors(path)["a"].read(), numbers.reshape(2, 3))
    hostile = Call(Name("torch._utils._rebuild_parameter_with_state"), 1, True, None, {})
    with pytest.raises(FormatError, match="called with 4 arguments of other kind"):
        read_tensors(write_zip(tmp_path / "b.bin", pickled({"a": hostile})))


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_tensors_of_types_without_storages(tmp_path, write):
    """As torch has float8 and unsigned numbers: the bytes, and the type."""
    reference = ("persistent", "storage", Name("torch.storage.UntypedStorage"), "0", "cpu", 24)
    for dtype, n, spelling in (("torch.uint16", 12, "U16"), ("torch.float8_e4m3fn", 24, "F8_E4M3")):
        arguments = (reference, 0, (n,), (1,), False, Call(OrderedDict), Name(dtype))
        state = pickled({"a": Call(Name("torch._utils._rebuild_tensor_v3"), *arguments)})
        more = {"numel": 24} if write is write_legacy else {}
        stored = read_tensors(write(tmp_path / "a.bin", state, **more))["a"]
        assert (stored.dtype, stored.shape) == (spelling, (n,))
        with pytest.raises(FormatError, match=f"a is {spelling}; weights must be one of F32"):
            stored.tensor()


def test_what_is_there_instead_of_a_missing_tensor_is_named(tmp_path):
    shutil.copy(FIXTURES / "zip-float32/config.json", tmp_path)
    state = {name.replace("h.1.mlp.c_fc", "h.1.mlp.dense"): values for name, values in EXPECTED.items()}
    path = write_state(tmp_path / "pytorch_model.bin", {**state, "head.bias": np.ones(1, "f4")})
    with pytest.raises(
        FormatError, match=r"c_fc.weight \[.*found instead: 'h.1.mlp.dense.weight', .*, 'head.bias'; do"
    ):
        open_checkpoint(path)


def test_a_head_that_shares_its_storage_is_not_read_twice(tmp_path, monkeypatch):
    """In files of torch the tied head stands by its name; comparing it by its numbers would read both."""
    monkeypatch.setattr("nbgpt.formats.stored.Stored.read", lambda self: pytest.fail("was read"))
    assert open_checkpoint(FIXTURES / "zip-float32").config.tied_embeddings


WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy])


@WRITERS
def test_the_test_files_are_readable(tmp_path, write):
    numbers = np.arange(6, dtype=np.float32)
    path = write(tmp_path / "a.bin", pickled({"a": tensor(), "b": tensor((3, 2), (1, 3))}), data=numbers.tobytes())
    tensors = read_tensors(path)
    np.testing.assert_array_equal(tensors["a"].read(), numbers.reshape(2, 3))
    np.testing.assert_array_equal(tensors["b"].read(), numbers.reshape(2, 3).T)


@WRITERS
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (tensor(shape=(2, 4), strides=(4, 1)), "does not fit into its storage of 6"),
        (tensor(offset=1), "does not fit into its storage"),
        (tensor(strides=(3, 2)), "does not fit into its storage"),
        (tensor(shape=(1 << 40, 1 << 40), strides=(0, 0)), "does not fit into its storage"),
        (tensor(shape=(7,), strides=(0,)), "does not fit into its storage"),
        (tensor(shape=(2, -3)), "has no valid shape"),
        (tensor(shape=(2, 3.0)), "has no valid shape"),
        (tensor(shape=[2, 3]), "has no valid shape"),
        (tensor(shape=(1,) * 9, strides=(1,) * 9), "has no valid shape"),
        (tensor(strides=(1,)), "has no valid shape"),
        (tensor(strides=(-3, 1)), "has no valid shape"),
        (tensor(offset=-1), "has no valid shape"),
        (tensor(offset=None), "has no valid shape"),
        (tensor(numel=7), "does not fit|claims 6 elements, its tensors 7"),
        (tensor(numel=1 << 70), "no valid shape|claims 6 elements"),
        (tensor(numel="6"), "a reference that is no storage"),
        (tensor(key="1"), "a storage that the file does not have|'0' belongs to no tensor"),
        (tensor(key=("0",)), "a reference that is no storage"),
        (tensor(kind="module"), "a reference that is no storage"),
        (tensor(storage="torch.QInt8Storage"), "asks for torch.QInt8Storage, .* save model.state_dict.. alone"),
        (tensor(storage="collections.OrderedDict"), "a reference that is no storage"),
        (Call(Name("torch._utils._rebuild_tensor_v2"), 1, 0, (2, 3), (3, 1)), "storage"),
        (Call(Name("torch._utils._rebuild_tensor_v2"), 1), "broken pickle"),
        (Call(Name("torch._utils._rebuild_parameter"), 1), "called with 1 arguments of other kinds"),
        (Call(Name("torch.FloatStorage"), 6), "torch.FloatStorage called with 1 arguments"),
        (Call("text", 6), "a call of what is no function"),
        (OrderedDict([((1, 2), 3)]), "a key is a tuple"),
    ],
)
def test_tensors_that_lie(tmp_path, write, broken, message):
    with pytest.raises(FormatError, match=message):
        read_tensors(write(tmp_path / "a.bin", pickled({"a": broken})))


ATTACKS = {
    "os.system": Call(Name("os.system"), "touch FLAG"),
    "posix.system": Call(Name("posix.system"), "touch FLAG"),
    "builtins.eval": Call(Name("builtins.eval"), "open('FLAG', 'w')"),
    "__builtin__.exec": Call(Name("__builtin__.exec"), "open('FLAG', 'w')"),
    "builtins.getattr": Call(Call(Name("builtins.getattr"), Name("torch._utils"), "sys"), "exit"),
    "torch.hub.load": Call(Name("torch.hub.load"), "a/b", "c"),
    "numpy.load": Call(Name("numpy.load"), "FLAG"),
    "functools.partial": Call(Call(Name("functools.partial"), Name("os.system"), "touch FLAG")),
    "torch._utils": Name("torch._utils"),
    "torch._utils._rebuild_tensor_v2.__globals__": Name("torch._utils._rebuild_tensor_v2.__globals__"),
}


@WRITERS
@pytest.mark.parametrize("name", ATTACKS)
def test_a_pickle_that_asks_for_anything_else_is_refused_and_named(tmp_path, monkeypatch, write, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match=f"the pickle asks for {name}, .* nothing of it was run"):
        read_tensors(write(tmp_path / "a.bin", pickled({"a": ATTACKS[name]})))
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


class System:
    def __reduce__(self):
        return os.system, ("touch FLAG",)


class Instance:
    """Pickles with NEWOBJ and BUILD."""


class State:
    def __getstate__(self):
        return {"a": 1}


@WRITERS
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [System(), Instance(), State(), Path, len, complex(1, 2), bytearray(3), {1, 2}])
def test_pickles_of_python_itself_are_refused(tmp_path, monkeypatch, write, protocol, value):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match=r"asks for|instruction"):
        read_tensors(write(tmp_path / "a.bin", pickle.dumps({"a": value}, protocol)))
    assert not (tmp_path / "FLAG").exists()


def test_attacks_before_the_tensors_of_the_older_layout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for where in ("magic", "version", "system"):
        with pytest.raises(FormatError, match=r"asks for os.system"):
            read_tensors(
                write_legacy(tmp_path / "a.bin", pickled({}), **{where: Call(Name("os.system"), "touch FLAG")})
            )
    with pytest.raises(FormatError, match=r"asks for os.system"):
        read_tensors(write_legacy(tmp_path / "a.bin", pickled({}), [Call(Name("os.system"), "touch FLAG")]))
    assert not (tmp_path / "FLAG").exists()


RAW = {
    "no end": b"\x80\x02}",
    "nothing on the stack": b"\x80\x02.",
    "memo that is not there": b"\x80\x02h\x07.",
    "memo of 32 GB": b"\x80\x02}r\xff\xff\xff\xffh\x07.",
    "bytes of 2 GB": b"\x80\x03B\xff\xff\xff\x7fx.",
    "text of 2 GB": b"\x80\x02X\xff\xff\xff\x7fx.",
    "text that is not UTF-8": b"\x80\x02X\x01\0\0\0\xff.",
    "frame of many bytes": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f}",
    "no mark": b"\x80\x02}u.",
    "name without end": b"\x80\x02c" + b"a" * 5000,
    "call of nothing": b"\x80\x02R.",
    "state of a name": b"\x80\x02ctorch\nFloatStorage\n}b.",
    "items of a list": b"\x80\x02]K\x01K\x02s.",
    "a key without a value": b"\x80\x02}(K\x01u.",
    "instance": b"\x80\x02(cos\nsystem\no.",
    "old instance": b"(S'touch FLAG'\nios\nsystem\n.",
    "extension": b"\x80\x02\x82\x01.",
    "names from the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "one name from the stack": b"\x80\x04\x8c\x02os\x93.",
    "persistent id of nothing": b"\x80\x02NQ.",
    "nested deeply": b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b".",
}


@WRITERS
@pytest.mark.parametrize("name", RAW)
def test_pickles_that_are_broken(tmp_path, write, name):
    path = write(tmp_path / "a.bin", RAW[name])
    with peak_below(100 * path.stat().st_size + (1 << 20)), pytest.raises(FormatError):
        read_tensors(path)


def test_archives_that_are_not_of_torch(tmp_path):
    path = tmp_path / "a.bin"
    good = pickled({"a": tensor()})
    with pytest.raises(FormatError, match=r"data.pkl.* is compressed or encrypted; torch.save only stores"):
        read_tensors(write_zip(path, good, method=zipfile.ZIP_DEFLATED))
    with pytest.raises(FormatError, match="byte order b'big'"):
        read_tensors(write_zip(path, good, byteorder="big"))
    with pytest.raises(FormatError, match=r"holds a list; expected a dict of tensors"):
        read_tensors(write_zip(path, pickled([1])))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    with pytest.raises(FormatError, match=r"expected one data.pkl in the archive, found 0"):
        read_tensors(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", good)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("m/data.pkl", good)
    with pytest.raises(FormatError, match="in the archive twice"):
        read_tensors(path)


def test_an_archive_that_claims_more_than_it_has(tmp_path):
    path = write_zip(tmp_path / "a.bin", pickled({"a": tensor()}))
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # of m/data/0, with both sizes at its byte 20
    data[entry + 20 : entry + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    path.write_bytes(data)
    with pytest.raises(FormatError, match="'m/data/0' ends past the end of the file"):
        read_tensors(path)


def test_the_older_layout_with_wrong_parts(tmp_path):
    path, good = tmp_path / "a.bin", pickled({"a": tensor()})
    with pytest.raises(FormatError, match=r"not one of torch.save in version 1001"):
        read_tensors(write_legacy(path, good, magic=7))
    with pytest.raises(FormatError, match=r"not one of torch.save in version 1001"):
        read_tensors(write_legacy(path, good, version=1000))
    with pytest.raises(FormatError, match="little-endian"):
        read_tensors(write_legacy(path, good, system={**SYSTEM, "little_endian": False}))
    with pytest.raises(FormatError, match="claims 7 elements, its tensors 6"):
        read_tensors(write_legacy(path, good, numel=7))
    with pytest.raises(FormatError, match="and 23 bytes are left; is the file cut short"):
        read_tensors(write_legacy(path, good, data=bytes(23)))
    with pytest.raises(FormatError, match="'0' belongs to no tensor"):
        read_tensors(write_legacy(path, good, keys=["0", "0"], data=bytes(60)))
    with pytest.raises(FormatError, match="lies in a storage that the file does not have"):
        read_tensors(write_legacy(path, good, keys=[]))


@WRITERS
def test_values_that_grow_when_they_are_written_out(tmp_path, write):
    nested = ()
    for _ in range(100):
        nested = (nested, nested)
    assert read_tensors(write(tmp_path / "a.bin", pickled({"a": tensor(), "b": nested}))).keys() == {"a"}
    for value in (
        nested,
        {"a": tensor(shape=nested)},
        {"a": tensor(numel=nested)},
        Call(nested, 1),
        Call(OrderedDict, nested),
    ):
        with pytest.raises(FormatError):
            read_tensors(write(tmp_path / "a.bin", pickled(value)))
    for where in ("magic", "version", "system"):
        with pytest.raises(FormatError):
            read_tensors(write_legacy(tmp_path / "a.bin", pickled({}), **{where: nested}))
    with pytest.raises(FormatError, match="the key of a storage is a tuple"):
        read_tensors(write_legacy(tmp_path / "a.bin", pickled({}), keys=[nested]))


def test_files_of_something_else(tmp_path):
    for data in (b"", b"<html>", b"PK\x03\x04", b"\x80"):
        (tmp_path / "a.bin").write_bytes(data)
        with pytest.raises(FormatError):
            read_tensors(tmp_path / "a.bin")
    (tmp_path / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (tmp_path / "config.json").write_text(json.dumps({"n_layer": 1, "n_head": 1, "n_embd": 2}))
    with pytest.raises(FormatError, match="Git LFS pointer"):
        open_checkpoint(tmp_path)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    shutil.copy(FIXTURES / "zip-float32/config.json", folder)
    return folder


def mutations(data, *regions):
    """Bytes of a file, changed here and there and perhaps cut; the regions are where that hurts most."""
    places = st.one_of(*(st.integers(first, last - 1) for first, last in regions), st.integers(0, len(data) - 1))
    changes = st.lists(st.tuples(places, st.binary(min_size=1, max_size=6)), min_size=1, max_size=4)

    def change(changes_and_cut):
        changed = bytearray(data)
        for place, new in changes_and_cut[0]:
            changed[place : place + len(new)] = new
        return bytes(changed[: changes_and_cut[1]])

    return st.tuples(changes, st.none() | st.none() | places).map(change)


def check_mutated(folder, data, size):
    """Only FormatError may come out, and no more memory go in than a small multiple of the file's size."""
    (folder / "pytorch_model.bin").write_bytes(data)
    with peak_below(8 * size + (1 << 20)), suppress(FormatError):
        for weights in open_checkpoint(folder).tensors.values():
            weights.read()


ZIP = (FIXTURES / "zip-float32/pytorch_model.bin").read_bytes()
LEGACY = (FIXTURES / "legacy-bfloat16/pytorch_model.bin").read_bytes()


@settings(max_examples=150, deadline=None)
@given(mutations(ZIP, (0, 4000), (ZIP.index(b"PK\x01\x02"), len(ZIP))))
def test_mutated_zip_files_raise_nothing_but_format_error(broken, data):
    check_mutated(broken, data, len(ZIP))


@settings(max_examples=150, deadline=None)
@given(mutations(LEGACY, (0, 200), (0, 4500)))
def test_mutated_older_files_raise_nothing_but_format_error(broken, data):
    check_mutated(broken, data, len(LEGACY))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([bytes([i]) for i in b".()]}tN0123abceghjlqrsuQRX\x80\x85\x86\x87\x88\x94"]), max_size=30)
)
def test_any_pickle_is_read_or_refused(broken, parts):
    write_zip(broken / "pytorch_model.bin", b"\x80\x02" + b"".join(parts))
    check_mutated(broken, (broken / "pytorch_model.bin").read_bytes(), 1000)
