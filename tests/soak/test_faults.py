"""Writing with every operation failing in turn, and with the process killed at each: the old file, or the new one.

The layer stands between `nbgpt.partial`, through which everything is written, and the system: opening, locking, each
write, flushing, fsync, renaming, closing.
"""

import errno
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import checkpoint_of, text_config, write_folder, write_text_model
from models import random_params
from tqdm import tqdm

import nbgpt
from nbgpt import partial
from nbgpt.backend import kernel_cache
from nbgpt.conversion.convert import convert
from nbgpt.formats import FormatError, open_checkpoint
from nbgpt.weights import BaseReference, ClassifierHead, load, read_head, save_head

CONFIG = text_config(n_layer=1)
PARAMS = random_params(CONFIG)
ERRORS = (errno.ENOSPC, errno.EACCES, errno.EINTR, errno.EIO)


def write_model(path):
    convert(checkpoint_of(CONFIG, PARAMS), "int8", path)


def write_head(path):
    ones = np.ones(4)
    head = ClassifierHead(("a", "b"), False, 1, "mean", ones, ones, np.ones((2, 4)), np.ones(2))
    save_head(path, head, BaseReference("a", "int8", "a", "0", False, "x"), "mine")


def write_kernels(path):
    if problem := kernel_cache._keep(b"{}\nelf" * 1000, path):
        raise OSError(errno.ENOSPC if "full" in problem[0] else errno.EACCES, problem[0], str(path))


@functools.cache
def model_with_session():
    with tempfile.TemporaryDirectory() as folder:
        model = nbgpt.load(write_text_model(Path(folder) / "m.safetensors", CONFIG, PARAMS), threads=1, mmap=False)
    session = model.session()
    session.generate("Once", max_tokens=3, seed=1)
    return model, session


def write_session(path):
    model_with_session()[1].save(path)


def read_session(path):
    model, session = model_with_session()
    assert len(model.load_session(path)) == len(session) > 0


WRITERS = {
    "convert": (write_model, load),
    "save": (write_head, read_head),
    "session": (write_session, read_session),
    "kernels": (write_kernels, lambda path: path.read_bytes().index(b"elf" * 1 + b"{}")),
}


class Layer:
    """Counts the operations; at number `fails_at` it does what it is told, once."""

    def __init__(self, monkeypatch, fails_at, act):
        self.n, self.fails_at, self.act = 0, fails_at, act
        monkeypatch.setattr(partial, "open", self.open, raising=False)
        monkeypatch.setattr(partial.fcntl, "flock", self.around(partial.fcntl.flock))
        monkeypatch.setattr(partial.os, "fsync", self.around(os.fsync))
        monkeypatch.setattr(Path, "replace", self.around(Path.replace))

    def step(self):
        self.n += 1
        if self.n == self.fails_at:
            self.act()

    def around(self, function):
        def called(*arguments, **options):
            self.step()
            return function(*arguments, **options)

        return called

    def open(self, *arguments, **options):
        self.step()
        return _File(self, open(*arguments, **options))  # noqa: PTH123 (what stands there)


class _File:
    def __init__(self, layer, file):
        self._layer, self._file = layer, file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        octets = memoryview(data).cast("B")
        half = len(octets) // 2
        self._file.write(octets[:half])
        self._file.flush()
        self._layer.step()
        return self._file.write(octets[half:])

    def flush(self):
        self._layer.step()
        self._file.flush()

    def fileno(self):
        return self._file.fileno()


@pytest.mark.parametrize("name", WRITERS)
def test_every_operation_fails_in_turn(tmp_path, monkeypatch, name):
    write, read = WRITERS[name]
    tmp_path.chmod(0o700)
    path = tmp_path / "a.safetensors"
    write(path)
    old, failed, number = path.read_bytes(), [], 0
    while True:
        number += 1
        code = ERRORS[number % len(ERRORS)]

        def fail(code=code):
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            layer = Layer(patch, number, fail)
            try:
                write(path)
            except OSError as error:
                failed.append((error.filename, "full" in str(error) and code != errno.ENOSPC))
        assert path.read_bytes() == old
        assert [*tmp_path.iterdir()] == [path]
        if layer.n < number:
            break
    assert len(failed) >= 4
    assert set(failed) == {(str(path), False)}
    read(path)


@pytest.mark.parametrize("name", WRITERS)
def test_killed_at_every_operation(tmp_path, monkeypatch, name):
    write, read = WRITERS[name]
    monkeypatch.setattr(partial, "IDLE_SECONDS", -1.0)  # what is left need not grow old
    tmp_path.chmod(0o700)
    path = tmp_path / "a.safetensors"
    write(path)
    old, number = path.read_bytes(), 0
    while True:
        number += 1
        child = multiprocessing.get_context("fork").Process(target=killed_at, args=(number, write, path))
        child.start()
        child.join(60)
        assert path.read_bytes() == old
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        assert set(tmp_path.iterdir()) == {path, *partial.leftovers(tmp_path)}
    assert number > 4
    write(path)
    assert [*tmp_path.iterdir()] == [path]
    read(path)


def killed_at(number, write, path):
    tqdm.set_lock(threading.RLock())  # its own lock is shared with this process, and would never be released
    with pytest.MonkeyPatch.context() as patch:
        Layer(patch, number, lambda: os.kill(os.getpid(), signal.SIGKILL))
        write(path)
    os._exit(0)


@pytest.mark.parametrize("kept", [0, 1, 100])
def test_a_source_that_is_cut_while_it_is_read(tmp_path, kept):
    folder = write_folder(tmp_path / "source", CONFIG, PARAMS)
    output = tmp_path / "out" / "a.safetensors"
    output.parent.mkdir()
    output.write_bytes(b"old")
    checkpoint = open_checkpoint(folder)
    os.truncate(folder / "model.safetensors", kept)
    with pytest.raises(FormatError, match="ends early; the file was cut short after it was opened"):
        convert(checkpoint, "int8", output)
    assert [(path.name, path.read_bytes()) for path in output.parent.iterdir()] == [("a.safetensors", b"old")]


# --- The process that compiles ----------------------------------------------------------------------------------------


@pytest.fixture
def to_be_compiled(tmp_path):
    """An object that is to be compiled into an empty folder, and what its compiler would make."""
    model_with_session()  # has compiled it, if it was not there
    found = kernel_cache.find_object("float32")
    tmp_path.chmod(0o700)
    return replace(found, path=tmp_path / found.path.name), found.path.read_bytes()


def child_of(program):
    """Another program instead of the compiler."""
    run = subprocess.run
    return lambda command, **options: run([sys.executable, "-c", program], **options)


def refuse(code):
    def refused(*arguments, **options):
        raise OSError(code, os.strerror(code))

    return refused


CHILDREN = {
    "no pipe": (os, "pipe", refuse(errno.EMFILE), "Too many open files"),
    "no process": (subprocess, "run", refuse(errno.EAGAIN), "Resource temporarily unavailable"),
    "no memory": (subprocess, "run", refuse(errno.ENOMEM), "Cannot allocate memory"),
    "killed": (subprocess, "run", child_of("import os; os.kill(os.getpid(), 9)"), "ended by signal 9"),
    "failed": (subprocess, "run", child_of("import sys; sys.exit('this and that')"), "this and that"),
    "nothing": (subprocess, "run", child_of(""), "not a kernel object"),
}


@pytest.mark.parametrize("name", CHILDREN)
def test_a_compiler_that_fails(to_be_compiled, monkeypatch, name):
    wanted, made = to_be_compiled
    holder, function, fault, said = CHILDREN[name]
    monkeypatch.setattr(holder, function, fault)
    with pytest.raises(kernel_cache.KernelError, match=said) as caught:
        kernel_cache._compile_and_keep(wanted)
    assert "\n" not in str(caught.value)
    assert list(wanted.path.parent.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(kernel_cache, "_compile", lambda wanted: made)
    kernel_cache._compile_and_keep(wanted)
    assert wanted.path.read_bytes() == made


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_a_compiler_whose_output_is_cut(to_be_compiled, monkeypatch, kept):
    wanted, made = to_be_compiled
    cut = made[: int(kept * len(made))]
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, cut, b""))
    with pytest.raises(kernel_cache.KernelError, match=r"what the compiler made .*: damaged"):
        kernel_cache._compile_and_keep(wanted)
    assert list(wanted.path.parent.iterdir()) == []
