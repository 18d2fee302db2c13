"""Native files: every format into every dtype, whole or not there at all."""

import errno
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import FIXTURES, TOKENIZER, checkpoint_of, text_config, write_folder
from models import config_of, native_params, random_params, write_native
from reference import RoundingEmbedding
from safetensors import deserialize, safe_open
from safetensors.numpy import save_file

from nbgpt import paths, weights
from nbgpt.conversion.convert import convert, n_bytes
from nbgpt.formats import Checkpoint, FormatError, open_checkpoint
from nbgpt.tokenizer import from_bytes
from nbgpt.weights import DTYPES

MIB = 1 << 20
FOLDED = {"attn.c_attn.weight": "ln_1", "mlp.c_fc.weight": "ln_2"}  # conversion may move factors between the two
CLOSE = {"float32": 0, "float16": 5e-4, "bfloat16": 2**-8, "int8": 0.01, "int4": 0.09}  # relative error of a matrix


def gguf_file(folder):
    from formats.test_gguf import WEIGHTS, write

    return write(folder / "tiny.gguf"), WEIGHTS


def tensorflow_folder(folder):
    source = FIXTURES / "tensorflow"
    return source, {name: tensor.read() for name, tensor in open_checkpoint(source).tensors.items()}


def safetensors_folder(folder):
    config = text_config()
    params = random_params(config)
    return write_folder(folder, config, params), params


def pytorch_folder(name):
    return lambda folder: (FIXTURES / "pytorch" / name, dict(np.load(FIXTURES / "pytorch" / "expected.npz")))


SOURCES = {
    "tensorflow": tensorflow_folder,
    "safetensors": safetensors_folder,
    "gguf": gguf_file,
    **{name: pytorch_folder(name) for name in ("zip-float32", "legacy-bfloat16", "sharded-float16")},
}


def as_array(value):
    """A parameter as numbers, in the shape that checkpoints have."""
    if isinstance(value, RoundingEmbedding):
        return value.T.weights()
    return value if isinstance(value, np.ndarray) else value.weights().T


def products(params):
    """What the model computes with: a LayerNorm's gain and bias are seen through the matrix that reads it."""
    arrays = {name: as_array(value) for name, value in params.items()}
    for layer in ("h.0.", "h.1."):
        for matrix, norm in FOLDED.items():
            w = arrays.pop(layer + matrix)
            for part in ("weight", "bias"):
                arrays[f"{layer}{norm}.{part} * {matrix}"] = arrays.pop(f"{layer}{norm}.{part}")[:, None] * w
    return arrays


def relative_error(values, expected):
    return np.linalg.norm(np.float64(values) - expected) / np.linalg.norm(np.float64(expected))


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


# What is stored


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_format_into_every_dtype(tmp_path, source, dtype):
    path, expected = source(tmp_path / "source" if source is safetensors_folder else tmp_path)
    convert(open_checkpoint(path), dtype, tmp_path / "m.safetensors")
    native = weights.load(tmp_path / "m.safetensors")
    found, expected = products(native_params(native)), products(expected)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if values.ndim == 1 or name == "wpe.weight":
            np.testing.assert_array_equal(found[name], values)
        elif dtype in ("float16", "bfloat16"):
            np.testing.assert_allclose(found[name], values, rtol=CLOSE[dtype], atol=1e-7)
        else:
            assert relative_error(found[name], values) <= CLOSE[dtype], name


def test_metadata(tmp_path):
    folder = FIXTURES / "pytorch" / "sharded-float16"
    convert(open_checkpoint(folder), "int8", tmp_path / "m.safetensors", name="tiny", bos=True)
    shards = sorted(folder.glob("*.bin"))
    native = weights.load(tmp_path / "m.safetensors")
    assert native.bos
    assert json.loads(native.metadata.pop("config")) == open_checkpoint(folder).config.to_dict()
    assert native.metadata == {
        "format": "nbgpt",
        "layout": weights.LAYOUT,
        "name": "tiny",
        "dtype": "int8",
        "bos": "true",
        "calibrated": "false",
        "source": ", ".join(shard.name for shard in shards),
        "source_sha256": hashlib.sha256(b"".join(shard.read_bytes() for shard in shards)).hexdigest(),
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_file_opens_with_safetensors(tmp_path, dtype):
    config = text_config(n_labels=3, tied_embeddings=False)
    convert(checkpoint_of(config, random_params(config)), dtype, tmp_path / "m.safetensors", name="tiny")
    native = weights.load(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", "numpy") as file:
        assert file.metadata() == native.metadata
    tensors = dict(deserialize((tmp_path / "m.safetensors").read_bytes()))  # NumPy has no bfloat16 for `safe_open`
    assert tensors.keys() == native.entries.keys()
    for name, entry in native.entries.items():
        assert (tensors[name]["dtype"], tuple(tensors[name]["shape"])) == (entry.dtype, entry.shape)
        assert tensors[name]["data"] == native.block[entry.start : entry.stop].tobytes()
        assert entry.start % 64 == 0


def test_progress_reaches_the_size_of_the_tensors(tmp_path):
    config, steps = config_of(), []
    checkpoint = replace(checkpoint_of(config, random_params(config)), tokenizer_files={})
    convert(checkpoint, "int4", tmp_path / "m.safetensors", progress=steps.append)
    assert sum(steps) == n_bytes(config, "int4")
    assert 0 <= (tmp_path / "m.safetensors").stat().st_size - sum(steps) < 10_000


def test_heads_of_its_own(tmp_path):
    config = config_of(tied_embeddings=False, n_labels=3)
    params = random_params(config)
    native = weights.load(write_native(tmp_path / "m.safetensors", params, config, "float32"))
    stored = native_params(native)
    assert native.config == config
    for name in ("wte.weight", "lm_head.weight", "score.weight"):
        np.testing.assert_array_equal(stored[name], params[name])
    tied = write_native(tmp_path / "tied.safetensors", random_params(config_of()), config_of(), "float32")
    assert not {"lm_head.weight", "score.weight"} & weights.load(tied).entries.keys()


def test_the_files_mode_is_the_users_choice(tmp_path):
    before = os.umask(0o027)
    try:
        path = write_native(tmp_path / "m.safetensors", random_params(config_of()), config_of(), "int8")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_notes_are_said_and_stored(tmp_path, capsys):
    config = config_of()
    checkpoint = replace(checkpoint_of(config, random_params(config)), tokenizer_files={}, notes=("one.", "two."))
    convert(checkpoint, "int8", tmp_path / "m.safetensors")
    assert capsys.readouterr().err == "nbgpt: one.\nnbgpt: two.\n"
    assert weights.load(tmp_path / "m.safetensors").metadata["notes"] == "one.; two."


# The vocabulary


def test_a_vocabulary_of_its_own_is_stored(tmp_path):
    config = text_config()
    convert(checkpoint_of(config, random_params(config)), "int8", tmp_path / "m.safetensors")
    assert from_bytes(weights.load(tmp_path / "m.safetensors").tokenizer) == TOKENIZER


def test_gpt2s_vocabulary_is_not_stored(tmp_path):
    from test_tokenizer import vocabulary_of, write

    merges = paths.shipped("vocab.bpe").read_text("utf-8")
    vocab_json, merges_txt = write(tmp_path, vocabulary_of(merges), merges)
    config = config_of(n_vocab=50257)
    checkpoint = checkpoint_of(config, random_params(config))
    checkpoint = replace(checkpoint, tokenizer_files={"vocab": vocab_json, "merges": merges_txt})
    convert(checkpoint, "int8", tmp_path / "m.safetensors")
    assert weights.load(tmp_path / "m.safetensors").tokenizer is None


def test_a_vocabulary_of_another_kind(tmp_path):
    (tmp_path / "vocab.json").write_text("[]")
    (tmp_path / "merges.txt").write_text("a b\n")
    files = {"vocab": tmp_path / "vocab.json", "merges": tmp_path / "merges.txt"}
    checkpoint = replace(checkpoint_of(config_of(), random_params(config_of())), tokenizer_files=files)
    with pytest.raises(FormatError, match=r"vocab.json: expected a JSON object, found list"):
        convert(checkpoint, "int8", tmp_path / "m.safetensors")


# Weights that cannot be converted


def refused(tmp_path, params, dtype):
    """The message, after a look that nothing was left behind."""
    (tmp_path / "out").mkdir()
    with pytest.raises(FormatError) as caught:
        write_native(tmp_path / "out" / "m.safetensors", params, config_of(n_labels=3), dtype)
    assert listing(tmp_path / "out") == []
    return str(caught.value)


BROKEN = ["wte.weight", "wpe.weight", "score.weight", "ln_f.bias"]
BROKEN += [f"h.1.{name}" for name in ("ln_1.weight", "attn.c_attn.weight", "mlp.c_proj.weight", "mlp.c_fc.bias")]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_not_finite(tmp_path, dtype, name, value):
    params = random_params(config_of(n_labels=3))
    params[name].flat[-1] = value
    message = refused(tmp_path, params, dtype)
    assert message.startswith(f"{name}: ")
    assert f"hold {value}" in message
    assert "\n" not in message


def test_weights_too_large_for_float16(tmp_path):
    params = random_params(config_of(n_labels=3))
    params["h.0.mlp.c_fc.weight"][3, 5] = 7e4
    message = refused(tmp_path, params, "float16")
    assert message == "h.0.mlp.c_fc.weight: weights reach 7e+04; float16 holds 6.55e+04 at most: choose float32"


def test_a_bfloat16_checkpoint_loses_nothing_as_bfloat16(tmp_path):
    source = FIXTURES / "pytorch" / "legacy-bfloat16"
    convert(open_checkpoint(source), "bfloat16", tmp_path / "m.safetensors")
    found = native_params(weights.load(tmp_path / "m.safetensors"))
    for name, tensor in open_checkpoint(source).tensors.items():
        np.testing.assert_array_equal(as_array(found[name]), tensor.read())


def test_an_unknown_dtype(tmp_path):
    with pytest.raises(ValueError, match="dtype is 'int2'; choose one of float32, float16, bfloat16, int8, int4"):
        write_native(tmp_path / "m.safetensors", random_params(config_of()), config_of(), "int2")


def test_the_weights_are_not_overwritten(tmp_path):
    source = write_folder(tmp_path, text_config(), random_params(text_config())) / "model.safetensors"
    before = source.read_bytes()
    with pytest.raises(ValueError, match=r"model.safetensors is what is to be converted: choose another file"):
        convert(open_checkpoint(source), "int8", tmp_path / "." / "model.safetensors")
    assert source.read_bytes() == before


def test_what_is_no_ordinary_file_is_not_replaced(tmp_path):
    source = write_folder(tmp_path / "source", text_config(), random_params(text_config()))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for output in (pipe, tmp_path):
        with pytest.raises(ValueError, match=r"is no ordinary file: choose another name"):
            convert(open_checkpoint(source), "int8", output)
    assert pipe.is_fifo()


# A conversion that fails leaves nothing behind


@pytest.fixture
def out(tmp_path):
    """A file that a conversion is to replace."""
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "m.safetensors"
    path.write_bytes(b"what was there before")
    yield path
    assert listing(path.parent) == ["m.safetensors"]
    assert path.read_bytes() == b"what was there before"


def write_to(path, **options):
    config = config_of()
    checkpoint = replace(checkpoint_of(config, random_params(config)), tokenizer_files={})
    convert(checkpoint, "float32", path, **options)


def test_a_disk_that_is_full(out):
    """As far as this process is concerned: it may write no files of more than 100 kB."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*/out/m.safetensors'"):
            write_to(out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_a_disk_that_is_found_full_at_the_end(out, monkeypatch):
    def fsync(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=r"No space left on device: '.*/out/m.safetensors'"):
        write_to(out)


def test_control_c_in_the_middle(out):
    n_calls = 0

    def progress(n_bytes):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_to(out, progress=progress)


def test_a_source_that_vanishes(out, tmp_path):
    folder = write_folder(tmp_path / "source", text_config(), random_params(text_config()))
    checkpoint = open_checkpoint(folder)

    def progress(n_bytes):
        (folder / "model.safetensors").unlink(missing_ok=True)

    with pytest.raises(FileNotFoundError, match=r"source/model.safetensors"):
        convert(checkpoint, "int8", out, progress=progress)


def test_a_folder_that_cannot_be_written():
    """By a user without rights; the tests may run as one with all of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match=r"Permission denied: '.*/m.safetensors'"):
                write_to(folder / "m.safetensors")
        finally:
            os.seteuid(os.getuid())
        assert listing(folder) == []
        folder.chmod(0o755)


# Memory


CHILD = """
import sys
from pathlib import Path
from nbgpt.conversion.convert import convert
from nbgpt.formats import open_checkpoint
for dtype in sys.argv[3:]:
    convert(open_checkpoint(Path(sys.argv[1])), dtype, Path(sys.argv[2]))
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say how much memory was used")
def test_it_takes_the_memory_of_the_largest_tensor(tmp_path):
    """And 200 MiB at most, the interpreter included; the model has 300 MB, nearly all of them in two matrices."""
    config = config_of(n_vocab=60_000, n_embd=768, n_head=12, n_layer=1, n_ctx=64, n_inner=30_000)
    shapes = {name: values.shape for name, values in random_params(replace(config, n_vocab=1, n_inner=1)).items()}
    rng = np.random.default_rng(0)
    shapes["wte.weight"] = (config.n_vocab, config.n_embd)
    shapes |= {"h.0.mlp.c_fc.weight": (768, 30_000), "h.0.mlp.c_fc.bias": (30_000,)}
    shapes["h.0.mlp.c_proj.weight"] = (30_000, 768)
    folder = tmp_path / "source"
    write_folder(folder, config, {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()})
    for file in ("vocab.json", "merges.txt"):
        (folder / file).unlink()
    command = [sys.executable, "-c", CHILD, str(folder), str(tmp_path / "m.safetensors"), "float16", "int8"]
    peak = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout) * 1024
    assert peak <= 4 * config.n_vocab * config.n_embd + 200 * MIB


def test_a_tensor_is_read_when_its_turn_has_come(tmp_path):
    """And, but for the two matrices behind a LayerNorm, once."""
    config = config_of()
    checkpoint = checkpoint_of(config, random_params(config))
    reads = []

    def noted(name, read):
        return lambda: reads.append(name) or read()

    tensors = {name: replace(tensor, read=noted(name, tensor.read)) for name, tensor in checkpoint.tensors.items()}
    convert(Checkpoint(config, tensors, []), "float32", tmp_path / "m.safetensors")
    assert sorted(reads) == sorted(tensors)


def test_safetensors_that_holds_other_things_too(tmp_path):
    """Numbers of a training run beside the weights do not get into the native file."""
    folder = write_folder(tmp_path, text_config(), random_params(text_config()))
    params = random_params(text_config()) | {"optimizer.step": np.zeros(3, np.float32)}
    save_file(params, folder / "model.safetensors")
    convert(open_checkpoint(folder), "int8", tmp_path / "m.safetensors")
    assert "optimizer.step" not in weights.load(tmp_path / "m.safetensors").entries
