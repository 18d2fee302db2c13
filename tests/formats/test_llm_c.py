"""llm.c's model files, written here as its train_gpt2.py writes them."""

import struct
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from formats.test_pytorch import EXPECTED
from hypothesis import given, settings
from hypothesis import strategies as st

from nbgpt.formats import FormatError, open_checkpoint

HEADER = (24, 61, 2, 2, 16, 128)  # n_ctx, n_vocab, n_layer, n_head, n_embd, rows of the padded token embedding
MODULES = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")


def write(path, version=3, header=HEADER, tensors=EXPECTED, magic=20240326):
    """The padding is NaN: none of it may be read."""
    padding = np.full((128 - 61, 16), np.nan, np.float32)
    ordered = [np.concatenate([tensors["wte.weight"], padding]), tensors["wpe.weight"]]
    for module in MODULES:
        for kind in ("weight", "bias"):
            ordered += [tensors[f"h.{layer}.{module}.{kind}"].T for layer in range(2)]  # Linear: [n_out, n_in]
    ordered += [tensors["ln_f.weight"], tensors["ln_f.bias"]]
    values = np.concatenate([array.reshape(-1) for array in ordered])
    data = (values.view(np.uint32) >> 16).astype("<u2") if version == 5 else values
    path.write_bytes(struct.pack("<256i", magic, version, *header, *[0] * 248) + data.tobytes())
    return path


@pytest.mark.parametrize("version", [3, 5])
def test_both_versions(tmp_path, version):
    checkpoint = open_checkpoint(write(tmp_path / "gpt2_tiny.bin", version))
    assert checkpoint.config.activation == "gelu_new"
    assert checkpoint.config.tied_embeddings
    assert checkpoint.tensors.keys() == EXPECTED.keys()
    for name, tensor in checkpoint.tensors.items():
        values = tensor.read()
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, EXPECTED[name], err_msg=name)


@pytest.mark.parametrize("version", [1, 2, 4, 6, -1])
def test_other_versions_are_refused_by_number(tmp_path, version):
    with pytest.raises(FormatError, match=f"version {version}; nbgpt reads 3 .float32. and 5 .bfloat16.: write it"):
        open_checkpoint(write(tmp_path / "gpt2_tiny.bin", version))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ((24, 61, 2, 2, 16, 0), "with 0 rows for 61 tokens"),
        ((24, 61, 2, 2, 16, 192), "the header asks for .*, with 192 rows for 61 tokens"),
        ((24, 61, 3, 2, 16, 128), "bytes; the header asks for"),
        ((24, 61, (1 << 24) - 1, 2, 1 << 20, 128), "bytes; the header asks for"),
        ((-24, 61, 2, 2, 16, 128), "n_ctx is -24"),
        ((24, 61, 2, 0, 16, 128), "n_head is 0"),
        ((24, 61, 2, 3, 16, 128), "n_embd 16 is not a multiple of n_head 3"),
    ],
)
def test_headers_that_lie(tmp_path, header, message):
    path = write(tmp_path / "gpt2_tiny.bin", header=header)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=message):
            open_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_is_cut_short(tmp_path):
    path = write(tmp_path / "gpt2_tiny.bin")
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(FormatError, match="is it cut short"):
        open_checkpoint(path)
    path.write_bytes(data[:1000])
    with pytest.raises(FormatError, match="ends within its header"):
        open_checkpoint(path)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("broken") / "gpt2_tiny.bin")
    return path, path.read_bytes()


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.integers(1, 7), st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(0, 130)), st.integers(0, 9)
)
def test_any_header_is_read_or_refused(intact, changes, cut):
    path, data = intact
    header = bytearray(data)
    for field, value in changes.items():
        struct.pack_into("<i", header, 4 * field, value)
    path.write_bytes(header[: len(data) - cut])
    tracemalloc.start()
    try:
        with suppress(FormatError):
            for tensor in open_checkpoint(path).tensors.values():
                tensor.read()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_other_files_of_llm_c_are_none(tmp_path):
    with pytest.raises(FormatError, match=r"expected a file of torch.save"):
        open_checkpoint(write(tmp_path / "gpt2_tiny_debug_state.bin", magic=20240327))
