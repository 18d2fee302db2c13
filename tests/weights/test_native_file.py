"""Native files that are not what they should be: one clear line each."""

import json
import os
from contextlib import suppress

import numpy as np
import pytest
from folders import text_config, write_text_model
from hypothesis import given, settings
from hypothesis import strategies as st
from models import config_of, random_params, write_native
from safetensors.numpy import save_file

from nbgpt.abi.layout import HEAD_DTYPE
from nbgpt.formats import FormatError
from nbgpt.weights import DTYPES, LAYOUT, is_native, load, native_file, native_shapes


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    config = config_of(n_layer=1, n_ctx=24)
    return write_native(tmp_path_factory.mktemp("models") / "m.safetensors", random_params(config), config, "int8")


def split(data):
    """Header and the bytes after it."""
    n_header = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + n_header]), data[8 + n_header :]


def join(header, tensors, multiple=64):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % multiple)
    return len(text).to_bytes(8, "little") + text + tensors


def refusal(path, data):
    """What is said of a file of these bytes: one line, with its name."""
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def with_metadata(file, **changes):
    header, tensors = split(file.read_bytes())
    header["__metadata__"] |= changes
    return join(header, tensors)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_native_file(tmp_path, dtype):
    config = text_config(tied_embeddings=False)
    path = write_text_model(tmp_path / "m.safetensors", config, random_params(config), dtype, bos=True)
    native = load(path)
    assert is_native(path)
    assert (native.path, native.config, native.dtype, native.bos) == (path, config, dtype, True)
    assert [*native.entries] == [*native_shapes(config, dtype), "tokenizer"]
    assert not native.block.flags.writeable
    assert len(native.block) == path.stat().st_size
    scales = native.entries.get("h.1.mlp.c_fc.weight.scale")
    assert (scales is None) == (dtype in ("float32", "float16", "bfloat16"))
    assert ("lm_head.weight.scale" in native.entries) == (HEAD_DTYPE[dtype] == "int8")


# The metadata


def test_another_layout(file, tmp_path):
    message = refusal(tmp_path / "m", with_metadata(file, layout="99"))
    assert message.endswith(f": layout 99, this nbgpt reads {LAYOUT}: convert it again")
    header, tensors = split(file.read_bytes())
    del header["__metadata__"]["layout"]
    assert "layout None" in refusal(tmp_path / "m", join(header, tensors))


def test_somebody_elses_safetensors(tmp_path):
    save_file(random_params(config_of()), tmp_path / "model.safetensors")
    assert not is_native(tmp_path / "model.safetensors")
    message = refusal(tmp_path / "model.safetensors", (tmp_path / "model.safetensors").read_bytes())
    assert message.endswith(f" is not a native file: run `python -m nbgpt convert {tmp_path}` on its folder")


def test_an_unknown_dtype(file, tmp_path):
    message = refusal(tmp_path / "m", with_metadata(file, dtype="int2"))
    assert message.endswith("dtype 'int2' is not one of float32, float16, bfloat16, int8, int4: convert it again")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "nested more than 64 deep"),
        ("[]", "expected a JSON object"),
        ("{}", "missing 3 required positional arguments"),
        ('{"n_layer": 1, "n_head": 1, "n_embd": 8, "colour": 1}', "colour"),
        ('{"n_layer": "1", "n_head": 1, "n_embd": 8}', "n_layer is '1'"),
        ('{"n_layer": 1, "n_head": 0, "n_embd": 8}', "n_head is 0"),
        ('{"n_layer": 1, "n_head": 3, "n_embd": 8}', "n_embd 8 is not a multiple of n_head 3"),
        ('{"n_layer": 99999999999, "n_head": 1, "n_embd": 8}', "n_layer is 99999999999"),
    ],
)
def test_hostile_configs(file, tmp_path, config, found):
    message = refusal(tmp_path / "m", with_metadata(file, config=config))
    assert "its config cannot be read (" in message
    assert found in message
    assert message.endswith("): convert it again")


@pytest.mark.parametrize(
    "changes",
    [
        {"n_layer": (1 << 24) - 1},
        {"n_vocab": (1 << 24) - 1},
        {"n_embd": (1 << 24) - 3},
        {"n_inner": 1},
        {"n_labels": 7},
        {"n_labels": -1},
        {"n_labels": "x"},
        {"tied_embeddings": False},
    ],
)
def test_configs_of_other_sizes(file, tmp_path, changes):
    """However large: what does not lie in the file is not made room for."""
    header, _ = split(file.read_bytes())
    config = json.loads(header["__metadata__"]["config"]) | changes
    message = refusal(tmp_path / "m", with_metadata(file, config=json.dumps(config)))
    assert message.endswith(": convert it again")


# The tensors


def test_a_missing_tensor(file, tmp_path):
    header, tensors = split(file.read_bytes())
    entry = header.pop("ln_f.bias")
    begin, end = entry["data_offsets"]
    assert end == len(tensors)
    message = refusal(tmp_path / "m", join(header, tensors[:begin]))
    assert message.endswith(": ln_f.bias is missing; expected F32 [64]: convert it again")


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("wte.weight", {"shape": [4, 16, 64]}, "U8 [4, 16, 16, 4]"),
        ("ln_f.bias", {"shape": [8, 8]}, "F32 [64]"),
        ("ln_f.bias", {"dtype": "I32"}, "F32 [64]"),
        ("h.0.mlp.c_fc.weight.scale", {"dtype": "BF16"}, "F16 [12, 1, 16]"),
    ],
)
def test_a_tensor_of_another_kind(file, tmp_path, name, change, expected):
    header, tensors = split(file.read_bytes())
    header[name] |= change
    found = f"{header[name]['dtype']} {header[name]['shape']}"
    message = refusal(tmp_path / "m", join(header, tensors))
    assert message.endswith(f": {name} is {found}; expected {expected}: convert it again")


def test_tensors_that_are_not_aligned(file, tmp_path):
    header, tensors = split(file.read_bytes())
    header["__metadata__"]["more"] = "x" * 3
    data = join(header, tensors, multiple=1)
    while int.from_bytes(data[:8], "little") % 64 == 56:
        header["__metadata__"]["more"] += "x"
        data = join(header, tensors, multiple=1)
    assert "no multiple of 64: convert it again" in refusal(tmp_path / "m", data)


# The file


def test_a_file_that_is_cut_short_or_too_long(file, tmp_path):
    data = file.read_bytes()
    for cut in (data[:-1], data[: len(data) // 2], data + b"\0"):
        assert "cut short?" in refusal(tmp_path / "m", cut)
    for cut in (data[:100], data[:8], data[:7], b""):
        assert "it is cut short or no safetensors file" in refusal(tmp_path / "m", cut)


def test_a_header_that_claims_too_much(file, tmp_path):
    data = file.read_bytes()
    assert f"claims a header of {2**63} bytes" in refusal(tmp_path / "m", (2**63).to_bytes(8, "little") + data[8:])


def test_is_native_says_what_is_wrong_with_a_safetensors_file(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="cut short"):
        is_native(tmp_path / "m.safetensors")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert not is_native(tmp_path / "m.gguf")
    assert not is_native(tmp_path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "m.safetensors")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_change_of_the_header_is_read_or_refused(file, data):
    content = bytearray(file.read_bytes())
    n_header = int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 7 + n_header))] = data.draw(st.integers(0, 255))
    changed = file.with_name("changed")
    changed.write_bytes(content)
    with suppress(FormatError):
        load(changed)


def test_a_file_that_is_cut_while_it_is_opened(file, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(file.read_bytes())
    read = native_file.read_header

    def read_and_cut(path):
        found = read(path)
        os.truncate(path, path.stat().st_size - 100)
        return found

    monkeypatch.setattr(native_file, "read_header", read_and_cut)
    with pytest.raises(FormatError, match=r"a.safetensors: \d+ bytes, and a moment ago \d+: who is writing it\?"):
        native_file.load(path)


def test_a_copy_outlives_its_file(file, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(file.read_bytes())
    mapped = native_file.load(path)
    copied = mapped.unmapped()
    assert (mapped.is_mapped, copied.is_mapped) == (True, False)
    assert copied.block.ctypes.data % 64 == 0
    expected = mapped.block.copy()
    os.truncate(path, 0)
    assert np.array_equal(copied.block, expected)
