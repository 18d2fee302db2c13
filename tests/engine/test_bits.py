"""Equalities to the bit: a row's logits depend on its own past alone, for every type of weights.

Not on how a text was cut into passes, not on other texts in them, not on what the cache held before, not on threads.
"""

import os
import pickle
import platform
import subprocess
import sys
import threading

import numpy as np
import pytest
from models import config_of, open_model, random_params, read, write_native

from nbgpt.abi.job import MAX_JOBS
from nbgpt.abi.layout import HEAD_DTYPE, PAGE
from nbgpt.abi.targets import current_target
from nbgpt.engine.engine import Engine
from nbgpt.engine.kv_cache import Sequence
from nbgpt.weights import load

CONFIG = config_of(n_embd=60, n_inner=100)  # heads of 20: tails everywhere
TEXT = np.random.default_rng(7).integers(0, CONFIG.n_vocab, CONFIG.n_ctx)


@pytest.fixture(scope="module", params=HEAD_DTYPE)
def path(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / f"{request.param}.safetensors"
    return write_native(path, random_params(CONFIG), CONFIG, request.param)


@pytest.fixture(scope="module")
def model(path):
    return open_model(path, n_threads=2)


@pytest.fixture(scope="module")
def whole(model):
    """Logits after every token of the text, in one pass."""
    logits = read(model, TEXT)
    assert np.isfinite(logits).all()
    return logits


def forward(model, rows):  # [(token, sequence)] -> logits of every one
    return model.runner.forward(
        [int(token) for token, _ in rows], [sequence for _, sequence in rows], range(len(rows))
    ).copy()


def same(logits, expected):
    np.testing.assert_array_equal(logits.view(np.uint32), expected.view(np.uint32))


def test_cached_is_uncached(model, whole):
    for n in (1, 2, 6, 7, 63, 64, 65, 128, 129, 200):
        same(read(model, TEXT[:n])[-1], whole[n - 1])


@pytest.mark.parametrize("chunk", [1, 2, 5, 6, 7, 12, 13, 63, 64, 65, 150])
def test_prefill_in_chunks_is_whole(model, whole, chunk):
    same(read(model, TEXT, chunk=chunk), whole)


@pytest.mark.parametrize("kv_dtype", ["float32", "float16"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_long_past_shared_by_threads(tmp_path, dtype, kv_dtype):
    """Single rows see their past span by span, many rows see it at once."""
    config = config_of(n_embd=60, n_ctx=600)
    path = write_native(tmp_path / "model.safetensors", random_params(config), config, dtype)
    model = Engine(load(path), 2, kv_dtype)
    text = np.random.default_rng(8).integers(0, config.n_vocab, 600)
    whole = read(model, text)
    for start in (250, 509):
        first, second = Sequence(), Sequence()
        read(model, text[:start], first)
        same(read(model, text[start : start + 8], first, chunk=1), whole[start : start + 8])
        read(model, text[: start + 1], second)
        same(forward(model, [(text[start + 8], first), (text[start + 1], second)]), whole[[start + 8, start + 1]])


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_turns_of_one_call_are_calls(path, n_threads):
    """Ids that one call draws one after the other are those of a call for each; both go on from there."""
    model = open_model(path, n_threads)
    options = np.random.default_rng(9).random((MAX_JOBS, 3, 4))
    options[:, :, 1] = (0, 5, 20)  # top_k
    options[:, 0, 0] = 0  # the first text is greedy
    one_by_one, together = [], []
    for texts, turns in ((one_by_one, 1), (together, MAX_JOBS)):
        sequences = [Sequence() for _ in range(3)]
        for n, sequence in zip((60, 1, 100), sequences, strict=True):
            read(model, TEXT[:n], sequence)
        drawn = [TEXT[:3].tolist()]
        for start in range(0, MAX_JOBS, turns):
            drawn += model.runner.decode_steps(sequences, drawn[-1], options[start : start + turns]).tolist()
        texts += [drawn, [one.length for one in sequences], model.next_ids(sequences, drawn[-1], options[0].tolist())]
    assert one_by_one == together
    by_pass = [Sequence()]
    read(model, TEXT[:60], by_pass[0])
    assert model.next_ids(by_pass, [TEXT[0]], [tuple(options[0, 0])]) == [one_by_one[0][1][0]]


def test_a_half_float_cache_is_near_a_float_one(path, whole):
    halves = Engine(load(path), 2, "float16")
    logits = read(halves, TEXT)
    difference = np.abs(logits - whole).max() / np.abs(whole).max()
    assert 0 < difference < 0.05
    assert halves.cache.page_bytes * 2 == open_model(path).cache.page_bytes


def test_chunks_of_any_size(model, whole):
    rng = np.random.default_rng(0)
    for _ in range(5):
        cuts = np.sort(rng.choice(np.arange(1, 200), 12, replace=False))
        sequence = Sequence()
        same(np.concatenate([read(model, part, sequence) for part in np.split(TEXT, cuts)]), whole)


def test_prefill_gives_the_last_row(model, whole):
    same(model.runner.append(Sequence(), TEXT.tolist()), whole[-1])


def test_logits_of_chosen_rows(model, whole):
    for wants in ([0], [199], [5, 3, 3, 120], []):
        sequence = Sequence()
        same(model.runner.forward(TEXT.tolist(), [sequence] * 200, wants).copy(), whole[wants])


def test_alone_is_in_a_batch(model, whole):
    """Texts of different lengths are read side by side, then all go on a token at a time."""
    lengths = (1, 70, 5, 128, 64, 199)
    sequences = [Sequence() for _ in lengths]
    rows = [(token, one) for n, one in zip(lengths, sequences, strict=True) for token in TEXT[: n - 1]]
    same(forward(model, rows), np.concatenate([whole[: n - 1] for n in lengths]))
    same(forward(model, [(TEXT[one.length], one) for one in sequences]), whole[[n - 1 for n in lengths]])
    rows = [(TEXT[n + step], one) for step in range(6) for n, one in zip(lengths[:-1], sequences, strict=False)]
    same(forward(model, rows), whole[[n + step for step in range(6) for n in lengths[:-1]]])  # rows take turns


def test_neighbours_at_consecutive_positions(model):
    """Rows of different texts that look like one text: position follows position."""
    texts = [(TEXT[: 60 + n] + n) % CONFIG.n_vocab for n in range(12)]
    sequences = [Sequence() for _ in texts]
    alone = np.stack([read(model, text)[-1] for text in texts])
    for text, sequence in zip(texts, sequences, strict=True):
        read(model, text[:-1], sequence)
    same(forward(model, [(text[-1], one) for text, one in zip(texts, sequences, strict=True)]), alone)


def test_many_rows_in_one_pass(model, whole):
    sequences = [Sequence() for _ in range(4)]
    same(forward(model, [(token, one) for one in sequences for token in TEXT[:175]]), np.tile(whole[:175], (4, 1)))


@pytest.mark.parametrize("n_threads", [1, 3])
def test_any_number_of_threads(path, whole, n_threads):
    model = open_model(path, n_threads)
    same(read(model, TEXT), whole)
    same(read(model, TEXT[:70], chunk=1), whole[:70])


@pytest.mark.parametrize("n", [1, 63, 64, 65, 100, 127])
def test_forked_pages_are_own_pages(model, whole, n):
    """Both go on, one another way, and neither sees what the other wrote; nor do forks that go on in one pass."""
    first = Sequence()
    read(model, TEXT[:n], first)
    second = model.cache.fork(first, first.length)
    other = (TEXT[n:] + 1) % CONFIG.n_vocab
    expected = read(model, np.concatenate([TEXT[:n], other[:72]]))[n:]
    same(read(model, TEXT[n : n + 3], first), whole[n : n + 3])
    same(read(model, other[:70], second), expected[:70])
    same(read(model, TEXT[n + 3 : n + 72], first), whole[n + 3 : n + 72])
    third = model.cache.fork(second, second.length)
    same(forward(model, [(other[70], second), (other[70], third)]), expected[[70, 70]])
    same(forward(model, [(other[71], third), (TEXT[n + 72], first)])[0], expected[71])


def test_old_pages_leave_no_trace(path, whole):
    """Truncated, freed and taken again, or full of NaN from the start."""
    model = open_model(path)
    model.cache.extend(Sequence(), 1)
    model.cache.memory[:] = np.nan
    sequence = Sequence()
    same(read(model, TEXT, sequence), whole)
    for n in (199, 130, 128, 127, 65, 64, 63, 1, 0):
        model.cache.truncate(sequence, n)
        wrong = (TEXT[n : n + 70] + 1) % CONFIG.n_vocab
        read(model, wrong, sequence)
        model.cache.truncate(sequence, n)
        same(read(model, TEXT[n:], sequence), whole[n:])


def test_pages_are_shared_and_given_back(path):
    cache = open_model(path).cache
    first = Sequence()
    cache.extend(first, 2 * PAGE)
    first.length = 2 * PAGE
    in_use = cache.n_used
    second = cache.fork(first, first.length)
    assert cache.n_used == in_use
    cache.truncate(first, 0)
    assert cache.n_used == in_use
    cache.truncate(second, PAGE)
    assert cache.n_used == in_use // 2
    cache.truncate(second, 0)
    assert cache.n_used == 0


def test_layers_one_by_one(path, whole):
    """A pass over some layers leaves the residual stream for the next."""
    model, sequence = open_model(path), Sequence()
    for layer in range(CONFIG.n_layer):
        last = layer == CONFIG.n_layer - 1
        sequence.length = 0
        wants = range(200) if last else []
        parts = (2 * layer + 1 if layer else 0, 2 * layer + 3 + last)
        logits = model.runner.forward(TEXT.tolist(), [sequence] * 200, wants, parts=parts)
    same(logits.copy(), whole)


def test_a_forked_process(model, whole):
    """It has none of its parent's threads, and starts its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, pickle.dumps(read(model, TEXT[:100])[-1]))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        logits = pickle.load(pipe)
    assert os.waitpid(child, 0)[1] == 0
    same(logits, whole[99])
    same(read(model, TEXT[:100])[-1], whole[99])


def test_models_in_several_threads(path, whole):
    """Each with a thread pool of its own, on fewer cores than threads."""
    results = {}

    def work(name):
        results[name] = read(open_model(path, n_threads=2), TEXT, chunk=50)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in range(3):
        same(results[name], whole)


READ = """
import sys
from pathlib import Path
import numpy as np
from nbgpt.engine.kv_cache import Sequence
from nbgpt.engine.engine import Engine
from nbgpt.weights import load
text = np.load(sys.argv[2]).tolist()
logits = Engine(load(Path(sys.argv[1])), 2).runner.forward(text, [Sequence()] * len(text), range(len(text)))
np.save(sys.argv[2], logits)
"""


def logits_on(cpu, path, folder):
    """Logits of the text from kernels for another CPU, which this one must understand."""
    np.save(folder / "text.npy", TEXT)
    environment = {**os.environ, "NUMBA_CPU_NAME": cpu, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", READ, path, folder / "text.npy"], env=environment, check=True)
    return np.load(folder / "text.npy")


@pytest.mark.skipif(not current_target().fma or platform.machine() != "x86_64", reason="needs AVX2 and FMA")
@pytest.mark.parametrize("path", ["float16", "bfloat16", "int4"], indirect=True)
def test_any_instruction_set(path, whole, tmp_path):
    """AVX2 has half the registers, of half the size, and no integer dot product: other tiles, the same bits."""
    same(logits_on("haswell", path, tmp_path), whole)


@pytest.mark.skipif(not current_target().bf16, reason="bfloat16's kernels are those of every CPU with AVX-512, or none")
@pytest.mark.parametrize("path", ["bfloat16"], indirect=True)
def test_avx512_without_products_of_pairs(path, whole, tmp_path):
    same(logits_on("cascadelake", path, tmp_path), whole)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 CPU")
@pytest.mark.parametrize("path", ["float16"], indirect=True)
def test_without_fused_multiply_add(path, whole, tmp_path):
    """The oldest x86-64 rounds twice where others round once, and takes half floats apart itself."""
    errors = np.abs(logits_on("generic", path, tmp_path) - whole)
    assert errors.max() <= 2e-5 * np.abs(whole).max()
