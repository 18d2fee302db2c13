"""GGUF files, against files that the gguf package writes in the layout of llama.cpp's converter."""

import struct
import sys
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbgpt.formats import FormatError, open_checkpoint

gguf = pytest.importorskip("gguf", reason="reading GGUF files is an extra: pip install 'nbgpt[gguf]'")
Type = gguf.GGMLQuantizationType

N_EMBD, N_VOCAB, N_CTX, N_INNER = 64, 61, 24, 256
BLOCK = {  # ours -> llama.cpp's
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
GGUF_NAMES = {f"h.{i}.{ours}": f"blk.{i}.{theirs}" for i in range(2) for ours, theirs in BLOCK.items()}
GGUF_NAMES |= {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output"}


def weights():
    """A random GPT-2 of two layers under our names, Conv1D matrices [n_in, n_out]."""
    rng = np.random.default_rng(7)
    shapes = {"wte.weight": (N_VOCAB, N_EMBD), "wpe.weight": (N_CTX, N_EMBD)}
    for block in ("h.0.", "h.1."):
        shapes |= {f"{block}{norm}.{kind}": (N_EMBD,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
        shapes |= {f"{block}attn.c_attn.weight": (N_EMBD, 3 * N_EMBD), f"{block}attn.c_attn.bias": (3 * N_EMBD,)}
        shapes |= {f"{block}attn.c_proj.weight": (N_EMBD, N_EMBD), f"{block}attn.c_proj.bias": (N_EMBD,)}
        shapes |= {f"{block}mlp.c_fc.weight": (N_EMBD, N_INNER), f"{block}mlp.c_fc.bias": (N_INNER,)}
        shapes |= {f"{block}mlp.c_proj.weight": (N_INNER, N_EMBD), f"{block}mlp.c_proj.bias": (N_EMBD,)}
    shapes |= {"ln_f.weight": (N_EMBD,), "ln_f.bias": (N_EMBD,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


WEIGHTS = weights()


def as_stored(name, values):
    """Conv1D matrices stand transposed in a GGUF file."""
    return np.ascontiguousarray(values.T) if ".c_" in name and values.ndim == 2 else values


def add_tokens(writer):
    writer.add_token_list([f"token {i}" for i in range(N_VOCAB)])
    writer.add_token_types([1] * N_VOCAB)


def write(path, kind=Type.F32, tensors=WEIGHTS, architecture="gpt2", without=(), add_vocabulary=None, **metadata):
    """As llama.cpp writes it: matrices of the blocks and wte quantized, the rest float32."""
    path.unlink(missing_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    fields = {"block_count": 2, "context_length": N_CTX, "embedding_length": N_EMBD, "feed_forward_length": N_INNER}
    fields |= {"attention.head_count": 4, **metadata}
    for key, value in fields.items():
        if key not in without:
            writer.add_uint32(f"{architecture}.{key}", value)
    if "attention.layer_norm_epsilon" not in without:
        writer.add_layer_norm_eps(1e-5)
    (add_vocabulary or add_tokens)(writer)
    for name, values in tensors.items():
        stem, _, ending = name.rpartition(".")
        values = as_stored(name, values)
        used = kind if values.ndim == 2 and name != "wpe.weight" else Type.F32
        stored = gguf.quantize(values, used)
        writer.add_tensor(f"{GGUF_NAMES.get(stem, stem)}.{ending}", stored, raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("kind", "error"),
    [(Type.F32, 0), (Type.F16, 5e-4), (Type.BF16, 4e-3), (Type.Q8_0, 5e-3), (Type.Q4_0, 0.13), (Type.Q5_1, 0.04)],
)
def test_types(tmp_path, kind, error):
    checkpoint = open_checkpoint(write(tmp_path / "a.gguf", kind))
    assert checkpoint.tensors.keys() == WEIGHTS.keys()
    for name, tensor in checkpoint.tensors.items():
        values, expected = tensor.read(), WEIGHTS[name]
        assert values.shape == tensor.shape == expected.shape
        assert values.flags.c_contiguous
        assert np.abs(values - expected).max() <= error * np.abs(expected).max()
        if expected.ndim == 2 and name != "wpe.weight":
            exact = gguf.dequantize(gguf.quantize(as_stored(name, expected), kind), kind)
            np.testing.assert_array_equal(as_stored(name, values), exact)
            assert values.dtype == (np.float16 if kind == Type.F16 else np.float32)
        else:
            np.testing.assert_array_equal(values, expected, strict=True)


def test_config_comes_from_the_metadata(tmp_path):
    checkpoint = open_checkpoint(write(tmp_path / "a.gguf"))
    config = checkpoint.config
    assert (config.n_layer, config.n_head, config.n_embd, config.n_inner) == (2, 4, N_EMBD, N_INNER)
    assert (config.n_ctx, config.n_vocab, config.activation) == (N_CTX, N_VOCAB, "gelu_new")
    assert config.layer_norm_epsilon == 1e-5
    assert config.tied_embeddings
    assert checkpoint.files == [tmp_path / "a.gguf"]
    assert checkpoint.tokenizer_files == {"gguf": tmp_path / "a.gguf"}


def test_a_folder_with_one_gguf_file(tmp_path):
    write(tmp_path / "a.gguf")
    assert len(open_checkpoint(tmp_path).tensors) == len(WEIGHTS)
    write(tmp_path / "b.gguf")
    with pytest.raises(FormatError, match="found 2 GGUF files: name one of them"):
        open_checkpoint(tmp_path)


def test_output_is_tied_if_it_equals_the_embedding(tmp_path):
    same = WEIGHTS | {"lm_head.weight": WEIGHTS["wte.weight"]}
    checkpoint = open_checkpoint(write(tmp_path / "a.gguf", Type.Q8_0, same))
    assert checkpoint.config.tied_embeddings
    assert "lm_head.weight" not in checkpoint.tensors
    other = np.flip(WEIGHTS["wte.weight"], 0)
    checkpoint = open_checkpoint(write(tmp_path / "a.gguf", tensors=WEIGHTS | {"lm_head.weight": other}))
    assert not checkpoint.config.tied_embeddings
    np.testing.assert_array_equal(checkpoint.tensors["lm_head.weight"].read(), other)


def test_without_the_package(tmp_path, monkeypatch):
    path = write(tmp_path / "a.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(FormatError, match=r'pip install "nbgpt\[gguf\]"'):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "llama"}, "architecture 'llama'; nbgpt runs GPT-2 only"),
        ({"block_count": 3}, r"h.2.ln_1.weight \[64\] is missing"),
        ({"block_count": 1}, "h.1.* is no part of a GPT-2 of 1 layers"),
        ({"context_length": 25}, r"wpe.weight is \[24, 64\]; the config asks for \[25, 64\]"),
        ({"feed_forward_length": 128}, r"c_fc.weight is \[64, 256\]; the config asks for \[64, 128\]"),
        ({"attention.head_count": 3}, "n_embd 64 is not a multiple of n_head 3"),
        ({"without": ["block_count"]}, r"gpt2.block_count is missing"),
        ({"without": ["attention.layer_norm_epsilon"]}, r"gpt2.attention.layer_norm_epsilon is missing"),
        ({"tensors": {}}, r"token_embd.weight is missing"),
        ({"tensors": WEIGHTS | {"wte.weight": np.ones((3, 3, 64), "f4")}}, r"wte.weight is \[3, 3, 64\]"),
        ({"tensors": WEIGHTS | {"blk.0.ssm_a.weight": np.ones(3, "f4")}}, "blk.0.ssm_a.weight is no part of a GPT-2"),
    ],
)
def test_models_that_do_not_fit(tmp_path, options, message):
    with pytest.raises(FormatError, match=message):
        open_checkpoint(write(tmp_path / "a.gguf", **options))


def test_tensors_of_other_purposes_are_left_out(tmp_path):
    path = write(tmp_path / "a.gguf", tensors=WEIGHTS | {"rope_freqs.weight": np.ones(3, "f4")})
    assert open_checkpoint(path).tensors.keys() == WEIGHTS.keys()
    assert open_checkpoint(path).notes == ("left out what is no part of a GPT-2: 'rope_freqs.weight'",)


def test_metadata_of_every_type_is_passed_over(tmp_path):
    path = tmp_path / "a.gguf"
    write(path)
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_uint32("gpt2.block_count", 2)
    for name in ("uint8", "int8", "uint16", "int16", "int32", "uint64", "int64", "float32", "float64"):
        getattr(writer, f"add_{name}")(f"x.{name}", 3)
    writer.add_bool("x.bool", True)
    writer.add_array("x.numbers", [1, 2, 3])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(FormatError, match=r"token_embd.weight is missing"):  # so the metadata was read to its end
        open_checkpoint(path)


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def write_raw(path, metadata=b"", n_metadata=0, tensors=b"", n_tensors=0, start=b"GGUF\x03\0\0\0"):
    architecture = text("general.architecture") + struct.pack("<I", 8) + text("gpt2")
    counts = struct.pack("<QQ", n_tensors, n_metadata + 1)
    path.write_bytes(start + counts + architecture + metadata + tensors + bytes(64))
    return path


def info(name="a", dims=(4,), kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


HUGE = 1 << 62


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"start": b"GGML\x03\0\0\0"}, "begins with b'GGML'"),
        ({"start": b"GGUF\x01\0\0\0"}, "version 1; expected GGUF in version 2 or 3"),
        ({"start": b"GGUF\0\0\0\x03"}, "version 50331648; expected"),
        ({"n_metadata": HUGE}, "ends within its header|is there twice"),
        ({"n_tensors": HUGE}, "ends within its header|is there twice"),
        ({"metadata": struct.pack("<Q", HUGE), "n_metadata": 1}, "a string of .* bytes"),
        ({"metadata": text("a") + struct.pack("<IIQ", 9, 0, HUGE), "n_metadata": 1}, "ends within its header"),
        ({"metadata": text("a") + struct.pack("<IIQ", 9, 8, HUGE), "n_metadata": 1}, "ends within its header"),
        ({"metadata": text("a") + struct.pack("<IIQ", 9, 9, 1), "n_metadata": 1}, "an array of type 9"),
        ({"metadata": text("a") + struct.pack("<I", 13), "n_metadata": 1}, "unknown type 13"),
        ({"metadata": 2 * (text("a") + struct.pack("<II", 4, 1)), "n_metadata": 2}, "a is there twice"),
        ({"metadata": text("general.alignment") + struct.pack("<II", 4, 3), "n_metadata": 1}, "power of two"),
        ({"metadata": text("general.alignment") + struct.pack("<II", 4, 0), "n_metadata": 1}, "power of two"),
        ({"tensors": info() * 2, "n_tensors": 2}, "a is there twice"),
        ({"tensors": info(dims=(1,) * 5), "n_tensors": 1}, "a tensor of 5 dimensions"),
        ({"tensors": info(dims=(HUGE, HUGE)), "n_tensors": 1}, "is the file cut short"),
        ({"tensors": info(offset=HUGE), "n_tensors": 1}, "is the file cut short"),
        (
            {"tensors": info() + info("b", offset=8), "n_tensors": 2},
            "b takes the bytes 8 to 24 .* of which 16 are taken",
        ),
        ({"tensors": info(kind=999), "n_tensors": 1}, "unknown ggml type 999"),
        ({"tensors": info(kind=8, dims=(33,)), "n_tensors": 1}, "rows of 33, no multiple of 32"),
        ({"tensors": info("output.weight", kind=26), "n_tensors": 1}, "output.weight is I32"),
    ],
)
def test_headers_that_lie(tmp_path, parts, message):
    path = write_raw(tmp_path / "a.gguf", **parts)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=message):
            open_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_git_lfs_pointer_and_an_empty_file(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(FormatError, match="Git LFS pointer"):
        open_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="ends within its header"):
        open_checkpoint(path)


def test_a_file_cut_short_after_it_was_opened(tmp_path):
    path = write(tmp_path / "a.gguf", Type.Q8_0)
    checkpoint = open_checkpoint(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FormatError, match="ends early"):
        [tensor.read() for tensor in checkpoint.tensors.values()]


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("gguf") / "a.gguf", Type.Q4_0)
    return path, path.read_bytes()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_mutated_files_raise_nothing_but_format_error(intact, data):
    path, original = intact
    places = st.integers(0, 400) | st.integers(0, 5000) | st.integers(0, len(original) - 1)
    mutated = bytearray(original)
    for place, new in data.draw(st.lists(st.tuples(places, st.binary(min_size=1, max_size=8)), max_size=4)):
        mutated[place : place + len(new)] = new
    path.write_bytes(mutated[: data.draw(st.none() | places)])
    tracemalloc.start()
    try:
        with suppress(FormatError):
            for tensor in open_checkpoint(path).tensors.values():
                tensor.read()
        assert tracemalloc.get_traced_memory()[1] < 8 * len(original) + (1 << 20)
    finally:
        tracemalloc.stop()
