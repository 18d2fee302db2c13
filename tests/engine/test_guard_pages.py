"""Kernels read and write nothing beyond their arrays: weights, buffers and KV pages lie between guard pages here.

Each case is a process of its own, which a wrong access would end. The logits and the drawn ids are those of ordinary
memory. `.ci/run` runs this for other CPUs too.
"""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from guarded import guarded_zeros
from models import config_of, random_params, write_native

from nbgpt.abi.layout import HEAD_DTYPE

CONFIGS = {
    "tails everywhere": config_of(n_embd=60, n_inner=100, n_ctx=200),
    "one of each": config_of(n_layer=1, n_head=1, n_embd=1, n_inner=1, n_vocab=2, n_ctx=3),
    "whole panels": config_of(n_head=2, n_embd=64, n_inner=128, n_vocab=96, n_ctx=130),
    "its own head": config_of(n_embd=34, n_head=2, n_inner=33, n_vocab=33, n_ctx=70, tied_embeddings=False, n_labels=3),
}

CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from guarded import guarded_zeros
from nbgpt.engine import kv_cache, model_runner
from nbgpt.engine.engine import Engine
from nbgpt.engine.kv_cache import Sequence
from nbgpt.sampling.params import DrawParams
from nbgpt.weights import load

path, where, kv_dtype = sys.argv[1:]
weights = load(Path(path))
if where != "ordinary":
    def zeros(shape, dtype):
        return guarded_zeros(shape, dtype, at_end=where == "end")

    class Lent:
        def __init__(self, n, dtype):
            self.array = zeros((n,), dtype)

        def give_back(self, start, stop):
            self.array[start:stop] = 0

    block = zeros(weights.block.shape, "uint8")
    block[:] = weights.block
    weights = replace(weights, block=block)
    model_runner.aligned_zeros, kv_cache.LentMemory = zeros, Lent
n_ctx, n_vocab = weights.config.n_ctx, weights.config.n_vocab
text = np.random.default_rng(5).integers(0, n_vocab, n_ctx).tolist()
params = [DrawParams(1.0, 0, 1.0, 0.5), DrawParams(1.0, min(5, n_vocab), 0.9, 0.5), DrawParams(0, 0, 1.0, 0.0)]
page = kv_cache.PAGE
for n_threads in (1, 2):
    size = Engine(weights, 1, kv_dtype, 1 << 26).cache.page_bytes
    model = Engine(weights, n_threads, kv_dtype, size * 3 * (2 + n_ctx // page))
    for n in sorted({1, 2, 3, 5, 7, 13, 24, 25, 63, 64, 65, 129, n_ctx} & {*range(n_ctx + 1)}):
        logits = model.runner.forward(text[:n], [sequence := Sequence()] * n, range(n))
        print(n_threads, n, logits.tobytes().hex()[:4000], logits.astype(np.float64).sum())
        if n < n_ctx:
            several = [sequence, *(model.fork(sequence, n - i % 2) for i in range(2))]
            print(model.next_ids(several, text[:3], params))
"""


def run(path, where, kv_dtype):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CHILD, str(path), where, kv_dtype]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", HEAD_DTYPE)
def test_nothing_beyond_the_arrays(tmp_path, name, dtype):
    path = write_native(tmp_path / "model.safetensors", random_params(CONFIGS[name]), CONFIGS[name], dtype)
    kv_dtype = "float16" if dtype == "int8" else "float32"
    ordinary = run(path, "ordinary", kv_dtype)
    assert ordinary.returncode == 0, ordinary.stderr
    assert len(ordinary.stdout.splitlines()) >= 6
    for where in ("begin", "end"):
        guarded = run(path, where, kv_dtype)
        assert guarded.returncode != -signal.SIGSEGV, f"an access beyond the {where} of an array"
        assert guarded.returncode == 0, guarded.stderr
        assert guarded.stdout == ordinary.stdout


@pytest.mark.parametrize("index", [-1, 100])
def test_the_guards_bite(index):
    at_end = index > 0
    program = f"""
import ctypes
from guarded import guarded_zeros
array = guarded_zeros((64,), "uint8", at_end={at_end})
ctypes.c_char.from_address(array.ctypes.data + {index}).value
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGSEGV


def test_guarded_arrays_are_ordinary_ones():
    for shape, dtype in [((3, 5), "float32"), ((0,), "uint8"), ((4097,), "uint8"), (7, "float16")]:
        for at_end in (True, False):
            array = guarded_zeros(shape, dtype, at_end)
            assert not array.any()
            array[:] = 1
            assert array.sum() == array.size
            assert array.dtype == np.dtype(dtype)
