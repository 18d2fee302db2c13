"""Compression end to end: what goes in comes out, of the size that the model promises, wherever it is decompressed."""

import math
import os
import platform
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256

import pytest
from folders import TOKENIZER, text_config, write_text_model
from hypothesis import given, settings
from hypothesis import strategies as st
from models import random_params

import nbgpt
from nbgpt.abi.targets import current_target
from nbgpt.compression import codec, compress, decompress
from nbgpt.compression.container import Container
from nbgpt.formats import FormatError

N_CTX = 24
LONG = ("Naïve café 😀 it was a dark and stormy night. " * 8).encode() + b"\xff\xfe\x00 the end"
SIZES = {"chunk_size": 40, "window": 20, "overlap": 7}


def write_model(path, n_ctx=N_CTX, seed=0):
    config = text_config(n_ctx=n_ctx)
    params = {name: values / 4 for name, values in random_params(config, seed).items()}
    return write_text_model(path, config, params, bos=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="module")
def model(path):
    return nbgpt.load(path, threads=2)


@pytest.fixture(scope="module")
def packed(model):
    return compress(model.engine, model.tokenizer, LONG, **SIZES)


def n_used(model) -> int:
    return model.engine.cache.n_used


@pytest.mark.parametrize("data", [b"", b"a", b"\xff", "Naïve café 😀 日本語".encode(), LONG])
def test_round_trip(model, data):
    assert model.decompress(model.compress(data)) == data


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=60), st.integers(1, 30), st.integers(1, N_CTX), st.data())
def test_any_bytes_and_sizes(model, data, chunk_size, window, drawn):
    sizes = {"chunk_size": chunk_size, "window": window, "overlap": drawn.draw(st.integers(0, window - 1))}
    packed = compress(model.engine, model.tokenizer, data, **sizes)
    assert decompress(model.engine, model.tokenizer, packed, batch_size=drawn.draw(st.integers(1, 9))) == data
    assert n_used(model) == 0


def test_the_size_is_what_the_model_promises(model):
    """-log2 p of every token, computed in float64 for one prefix after another."""
    ids = TOKENIZER.encode("it was a dark and stormy night, and it was the end")[: N_CTX - 1]
    nll = sum(float(model.engine.nll([TOKENIZER.bos_id, *ids[: i + 1]], i + 1)[0]) for i in range(len(ids)))
    (chunk,) = Container.from_bytes(model.compress(TOKENIZER.decode_bytes(ids))).chunks
    assert nll / math.log(2) / 8 - 0.01 <= len(chunk.coded) <= nll / math.log(2) / 8 * 1.001 + 2


def test_text_past_the_window_slides_with_an_overlap(model, packed):
    """The second window of a chunk predicts as a fresh model does that has read the overlap alone."""
    ids = TOKENIZER.encode(LONG.decode(errors="ignore"))[:33]
    found = compress(model.engine, model.tokenizer, TOKENIZER.decode_bytes(ids), chunk_size=33, window=20, overlap=7)
    rows = [TOKENIZER.bos_id, *ids]
    nll = model.engine.nll(rows[:21]).sum() + model.engine.nll(rows[13:34], 8).sum()
    (chunk,) = Container.from_bytes(found).chunks
    assert len(chunk.coded) == pytest.approx(nll / math.log(2) / 8 + 0.5, abs=1)


@pytest.mark.parametrize("batch_size", [1, 2, 128])
def test_the_batch_changes_nothing(model, packed, batch_size):
    assert decompress(model.engine, model.tokenizer, packed, batch_size=batch_size) == LONG


def test_one_thread_and_little_memory_change_nothing(path, packed):
    with nbgpt.load(path, threads=1, kv_memory=1 << 17) as model:
        assert model.engine.cache.n_pages < len(Container.from_bytes(packed).chunks)
        assert compress(model.engine, model.tokenizer, LONG, **SIZES) == packed
        assert model.decompress(packed) == LONG


def test_one_chunk_can_be_read_alone(model, packed):
    n_chunks = len(Container.from_bytes(packed).chunks)
    parts = [decompress(model.engine, model.tokenizer, packed, chunk=i) for i in range(n_chunks)]
    assert n_chunks > 3
    assert b"".join(parts) == LONG
    for i in (-1, n_chunks, 1.5):
        with pytest.raises(ValueError, match=f"chunk is {i}; it must be a whole number from 0 on, below {n_chunks}"):
            decompress(model.engine, model.tokenizer, packed, chunk=i)


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in ("window", "overlap", "chunk_size") for value in (-1, 2.0)]
    + [("window", 0), ("window", N_CTX + 1), ("overlap", N_CTX), ("chunk_size", 0)],
)
def test_sizes_out_of_range(model, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be a whole number from"):
        compress(model.engine, model.tokenizer, b"a", **{name: value})


def test_text_is_no_bytes(model):
    with pytest.raises(ValueError, match="data is 'a'; it must be bytes; encode a text first"):
        model.compress("a")
    with pytest.raises(ValueError, match="packed is None; it must be the bytes of a compressed file"):
        model.decompress(None)


def test_progress_ends_at_the_number_of_tokens(model, packed):
    calls = []
    decompress(model.engine, model.tokenizer, packed, progress=lambda *call: calls.append(call))
    n_tokens = Container.from_bytes(packed).n_tokens
    assert calls == sorted(calls)
    assert calls[-1] == (n_tokens, n_tokens)


# What is refused


def test_another_model_is_refused(packed, tmp_path):
    for seed, n_ctx in ((1, N_CTX), (0, N_CTX + 1)):
        other = nbgpt.load(write_model(tmp_path / "other", n_ctx, seed))
        with other, pytest.raises(ValueError, match=r"with the model 'random float32, .*this one is 'other float32"):
            other.decompress(packed)


def test_another_cache_is_refused(path, packed):
    other = nbgpt.load(path, kv_dtype="float16")
    with other, pytest.raises(ValueError, match="give the same --model, --dtype and --kv-dtype"):
        other.decompress(packed)


@pytest.mark.parametrize("change", [{"crc": 5}, {"coded": b"\x90" * 9}])
def test_other_bits_are_noticed(model, packed, change):
    """As of a CPU without fused multiply-add: the file is whole, and what it decodes to is not what it was."""
    whole = Container.from_bytes(packed)
    forged = replace(whole, chunks=[whole.chunks[0], replace(whole.chunks[1], **change), *whole.chunks[2:]])
    with pytest.raises(FormatError, match="chunk 1 decodes to other bytes"):
        model.decompress(forged.to_bytes())


def test_a_header_that_lies_about_length_or_window(model, packed):
    whole = Container.from_bytes(packed)
    with pytest.raises(FormatError, match=rf"has {len(LONG)} bytes, and its header says {len(LONG) + 1}"):
        model.decompress(replace(whole, n_bytes=len(LONG) + 1).to_bytes())
    with pytest.raises(FormatError, match="says window 25"):
        model.decompress(replace(whole, window=N_CTX + 1).to_bytes())


def test_a_header_that_claims_endless_text(model, packed):
    """It ends with the coded bytes, and does not decode zeros for ever."""
    forged = replace(Container.from_bytes(packed), n_tokens=1 << 60, n_bytes=1 << 60)
    with pytest.raises(FormatError, match=r"chunk \d decodes to other bytes"):
        model.decompress(forged.to_bytes())
    assert n_used(model) == 0


def test_a_call_that_is_cut_short_gives_its_pages_back(model, packed, monkeypatch):
    def fail(logits):
        raise KeyboardInterrupt

    monkeypatch.setattr(codec, "frequencies", fail)
    for call in (lambda: model.compress(LONG), lambda: model.decompress(packed)):
        with pytest.raises(KeyboardInterrupt):
            call()
        assert n_used(model) == 0


# The same everywhere

ELSEWHERE = """
import sys
from pathlib import Path
import nbgpt
from nbgpt.compression import compress, decompress
path, packed, data, chunk_size, window, overlap = sys.argv[1:]
model = nbgpt.load(path, threads=1)
packed, data = Path(packed).read_bytes(), Path(data).read_bytes()
assert decompress(model.engine, model.tokenizer, packed, batch_size=3) == data
sizes = {"chunk_size": int(chunk_size), "window": int(window), "overlap": int(overlap)}
assert compress(model.engine, model.tokenizer, data, **sizes) == packed
"""


@pytest.mark.skipif(not current_target().fma or platform.machine() != "x86_64", reason="needs AVX2 and FMA")
@pytest.mark.parametrize(("cpu", "features"), [("haswell", ""), ("generic", "+sse2,+fma,+avx2")])
def test_kernels_for_other_cpus(path, packed, tmp_path, cpu, features):
    (tmp_path / "packed").write_bytes(packed)
    (tmp_path / "data").write_bytes(LONG)
    environment = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    files = [path, tmp_path / "packed", tmp_path / "data"]
    subprocess.run([sys.executable, "-c", ELSEWHERE, *map(str, [*files, *SIZES.values()])], env=environment, check=True)


@pytest.mark.skipif(not current_target().fma, reason="without fused multiply-add the model has other bits")
def test_the_bytes_stay_what_they_are():
    """Of the embedded model: what an older nbgpt has compressed can be decompressed. If not, raise VERSION."""
    text = b"Once upon a time there was a little girl who lived in a wood. \xf0\x9f" * 2
    with nbgpt.load() as model:
        packed = model.compress(text)
        assert model.decompress(packed) == text
    assert sha256(packed).hexdigest() == "d70673ae34432ab4f6484d99a94184bc276687287235b0957d3ceb8470253aaf"
