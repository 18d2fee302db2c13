"""`convert`: native files from official weights, and one line for each kind of bad weights."""

import os
import pickle
import resource

import numpy as np
import pytest

from nbgpt import weights
from nbgpt.conversion import registry


def test_convert(run, official, recital, tmp_path):
    source = official("mine")
    default = registry.models_folder() / "mine-int8.safetensors"
    said = "nbgpt: mine has the vocabulary of vocab.json and merges.txt\n"
    assert run("convert", source) == (0, f"{default}\n", said)
    assert run("generate", "-q", "--model", "mine", "-n", 3)[0] == 0

    output = tmp_path / "m.safetensors"
    assert run("convert", source, "--dtype", "int4", "-o", output, "--name", "other", "--bos") == (
        *(0, f"{output}\n"),
        said.replace("mine", "other"),
    )
    native = weights.load(output)
    assert (native.dtype, native.metadata["name"], native.bos) == ("int4", "other", True)

    assert run("convert", source, "--dtype", "float16", "-o", tmp_path)[1] == f"{tmp_path}/mine-float16.safetensors\n"
    assert weights.load(tmp_path / "mine-float16.safetensors").dtype == "float16"
    default.unlink()


def test_convert_to_a_name_that_is_not_utf_8(run, official, tmp_path):
    output = os.fsencode(tmp_path) + b"/\xff.safetensors"
    code, text, _ = run("convert", official("source"), "-o", os.fsdecode(output))
    assert (code, text) == (0, f"{tmp_path}/?.safetensors\n")
    assert b"\xff.safetensors" in os.listdir(os.fsencode(tmp_path))  # noqa: PTH208 (as bytes)


def test_convert_of_a_native_file(fails, recital, tmp_path):
    code, line = fails("convert", recital, "-o", tmp_path / "again.safetensors")
    assert (code, "is a native file already: convert the official weights" in line) == (1, True)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("/nonexistent/never",)


NAN = {"h.1.mlp.c_fc.weight": np.full((48, 192), np.nan, np.float32)}
SHAPE = {"h.1.mlp.c_fc.weight": np.zeros((48, 191), np.float32)}
HEADER = (2**40).to_bytes(8, "little") + b"{}"
EVIL = pickle.dumps({"wte.weight": Evil()})
BAD_FOLDERS = {
    "NaN": ({"params": NAN}, "h.1.mlp.c_fc.weight: weights hold nan: they are broken, fetch them again"),
    "shape": ({"params": SHAPE}, "h.1.mlp.c_fc.weight is [48, 191]; the config asks for [48, 192]"),
    "Llama": ({"files": {"config.json": b'{"model_type": "llama"}'}}, "model_type is 'llama'; nbgpt runs GPT-2 only"),
    "config": ({"files": {"config.json": b"[]"}}, "config.json: expected a JSON object, found list"),
    "cut short": ({"files": {"model.safetensors": b"abc"}}, "it is cut short or no safetensors file: fetch it again"),
    "header": ({"files": {"model.safetensors": HEADER}}, f"claims a header of {2**40} bytes and has 10 in all"),
    "pickle": ({"files": {"pytorch_model.bin": EVIL}}, "pytorch_model.bin"),
    "magic": ({"files": {"pytorch_model.bin": b"not a pickle"}}, "pytorch_model.bin"),
    "GGUF": ({"files": {"m.gguf": b"FUGG" * 10}}, "m.gguf"),
    "vocabulary": ({"files": {"vocab.json": b"[]"}}, "vocab.json: expected a JSON object, found list"),
}


@pytest.mark.parametrize(("bad", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_weights_that_cannot_be_converted(fails, official, tmp_path, bad, message):
    folder = official(**bad)
    for command in (["convert", folder, "-o", tmp_path / "m.safetensors"], ["generate", "--model", folder]):
        code, line = fails(*command)
        assert code == 1
        assert message in line
    assert not (tmp_path / "m.safetensors").exists()


def test_a_target_that_cannot_be_written(fails, official, tmp_path):
    code, line = fails("convert", official(), "-o", "/proc/none/m.safetensors")
    assert (code, line) == (1, "/proc/none: No such file or directory")
    (tmp_path / "file").touch()
    code, line = fails("convert", official(), "-o", tmp_path / "file" / "m.safetensors")
    assert (code, line.startswith(f"{tmp_path}/file")) == (1, True)


def test_a_disk_that_is_full(fails, official, tmp_path):
    folder, output = official(), tmp_path / "m.safetensors"
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert fails("convert", folder, "-o", output) == (1, f"{output}: File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
