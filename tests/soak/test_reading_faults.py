"""Reading with few bytes at a time, and with every read failing in turn: the same as otherwise, or one clear line.

The layer stands between a file's buffer and the system: each call of `read` there gives a part of what was asked for.
"""

import builtins
import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from folders import text_config, write_folder, write_text_model
from models import random_params

import nbgpt
from nbgpt.backend import kernel_cache
from nbgpt.conversion.convert import convert
from nbgpt.formats import FormatError, open_checkpoint
from nbgpt.weights import BaseReference, ClassifierHead, read_head, save_head

CONFIG = text_config(n_layer=1)
FIXTURES = Path(__file__).parents[1] / "fixtures"
ERRORS = (errno.EIO, errno.EACCES, errno.EINTR, errno.ESTALE)
AT_A_TIME = 61
"""Bytes: few, and a divisor of nothing."""


class Layer:
    """Files below a folder are read through it; read number `fails_at` fails, once."""

    def __init__(self, monkeypatch, folder, at_a_time=1 << 30, fails_at=0):
        self.folder, self.at_a_time, self.fails_at = str(folder), at_a_time, fails_at
        self.n, self._open = 0, io.open
        monkeypatch.setattr(io, "open", self.open)
        monkeypatch.setattr(builtins, "open", self.open)

    def open(self, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **options):
        if not str(file).startswith(self.folder) or {*mode} & {*"wxa+"} or buffering == 0:
            return self._open(file, mode, buffering, encoding, errors, newline, **options)
        binary = io.BufferedReader(_Raw(self, file))
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding, errors, newline)


class _Raw(io.FileIO):
    read, readall = io.RawIOBase.read, io.RawIOBase.readall

    def __init__(self, layer, path):
        super().__init__(path)
        self._layer = layer

    def readinto(self, buffer):
        layer = self._layer
        layer.n += 1
        if layer.n == layer.fails_at:
            code = ERRORS[layer.n % len(ERRORS)]
            raise OSError(code, os.strerror(code))
        return super().readinto(memoryview(buffer)[: layer.at_a_time])


def converted(source, out):
    convert(open_checkpoint(source), "int8", out)
    return out.read_bytes()


def hugging_face(folder):
    source = write_folder(folder / "source", CONFIG, random_params(CONFIG))
    return lambda: converted(source, folder / "out" / "a.safetensors")


def pytorch(folder):
    return lambda: converted(FIXTURES / "pytorch" / "zip-float32", folder / "out" / "a.safetensors")


def legacy(folder):
    return lambda: converted(FIXTURES / "pytorch" / "legacy-bfloat16", folder / "out" / "a.safetensors")


def tensorflow(folder):
    return lambda: converted(FIXTURES / "tensorflow", folder / "out" / "a.safetensors")


def native(folder):
    path = write_text_model(folder / "source" / "m.safetensors", CONFIG, random_params(CONFIG))
    return lambda: nbgpt.weights.load(path).block.tobytes()


def head(folder):
    path, ones = folder / "source" / "c.safetensors", np.ones(4)
    made = ClassifierHead(("a", "b"), False, 1, "mean", ones, ones, np.ones((2, 4)), np.ones(2))
    save_head(path, made, BaseReference("a", "int8", "a", "0", False, "x"), "mine")
    return lambda: read_head(path)[1].coefficients.tobytes()


def session(folder):
    path = write_text_model(folder / "source" / "m.safetensors", CONFIG, random_params(CONFIG))
    model, saved = nbgpt.load(path, threads=1), folder / "source" / "a.session"
    one = model.session()
    one.generate("Once", max_tokens=3, seed=1)
    one.save(saved)
    return lambda: model.engine.copy_kept(model.load_session(saved)._kept)[1].tobytes()


def kernels(folder):
    nbgpt.load(threads=1).close()
    found = kernel_cache.find_object("int8")
    path = folder / "source" / found.path.name
    path.parent.mkdir()
    path.write_bytes(found.path.read_bytes())
    return lambda: kernel_cache.read_object(path.read_bytes(), found.facts, str(path))[1]


READERS = [hugging_face, pytorch, legacy, tensorflow, native, head, session, kernels]


@pytest.mark.parametrize("make", READERS)
def test_few_bytes_at_a_time(tmp_path, monkeypatch, make):
    read = make(tmp_path)
    expected = read()
    folder = FIXTURES if make in (pytorch, legacy, tensorflow) else tmp_path / "source"
    with monkeypatch.context() as patch:
        layer = Layer(patch, folder, AT_A_TIME)
        assert read() == expected
    assert layer.n > 3


@pytest.mark.parametrize("make", READERS[:-1])  # kernels that cannot be read are compiled again
def test_every_read_fails_in_turn(tmp_path, monkeypatch, make):
    read = make(tmp_path)
    expected = read()
    folder = FIXTURES if make in (pytorch, legacy, tensorflow) else tmp_path / "source"
    number, said = 0, []
    while True:
        number += 1
        with monkeypatch.context() as patch:
            layer = Layer(patch, folder, fails_at=number)
            try:
                assert read() == expected
            except (OSError, FormatError) as error:
                said.append(str(error))
        out = [*(tmp_path / "out").glob("*")]
        assert [path.read_bytes() for path in out] == [expected] * len(out)
        if layer.n < number:
            break
    assert said
    assert all(str(folder) in line and "\n" not in line for line in said), said
    assert read() == expected
