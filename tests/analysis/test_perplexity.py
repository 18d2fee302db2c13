"""Perplexity against a float64 computation that follows the two recipes word for word."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import reference
from models import config_of, open_model, random_params, write_native

from nbgpt.analysis.perplexity import perplexity, windows

N_CTX, N_VOCAB = 32, 61
CONFIG = config_of(n_ctx=N_CTX, n_vocab=N_VOCAB, tied_embeddings=False)
PARAMS = random_params(CONFIG)
BOS = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return open_model(write_native(tmp_path_factory.mktemp("models") / "m.safetensors", PARAMS, CONFIG, "float32"))


@pytest.fixture
def text(rng):
    return rng.integers(0, N_VOCAB - 1, 150).tolist()


def log_probabilities(ids):
    return np.log(reference.softmax(reference.gpt2(np.array(ids), PARAMS, CONFIG)))


def llama_perplexity(ids, n_ctx, bos):
    """llama.cpp, tools/perplexity: the negative log-likelihoods, window by window."""
    nll = []
    for chunk in range(len(ids) // n_ctx):
        tokens = ids[chunk * n_ctx : (chunk + 1) * n_ctx]
        logs = log_probabilities(tokens if bos is None else [bos, *tokens[1:]])
        nll += [-logs[j][tokens[j + 1]] for j in range(n_ctx // 2, n_ctx - 1)]
    return nll


def hugging_face(ids, max_length, stride, bos):
    """Its page "Perplexity of fixed-length models": target_ids[:, :-trg_len] = -100, labels shifted by one."""
    nll, prev_end_loc = [], 0
    for begin_loc in range(0, len(ids), stride):
        end_loc = min(begin_loc + max_length, len(ids))
        trg_len = end_loc - prev_end_loc
        input_ids = ids[begin_loc:end_loc]
        target_ids = np.array(input_ids)
        target_ids[:-trg_len] = -100
        logs = log_probabilities(input_ids if bos is None else [bos, *input_ids[1:]])
        nll += [-log[target] for log, target in zip(logs[:-1], target_ids[1:], strict=True) if target != -100]
        prev_end_loc = end_loc
        if end_loc == len(ids):
            break
    return nll


def check(result, expected):
    assert result.n_scored == len(expected)
    assert result.nll == pytest.approx(np.mean(expected), rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(np.mean(expected)), rel=1e-4)
    variance = np.mean(np.square(expected)) - np.mean(expected) ** 2
    error = math.exp(np.mean(expected)) * math.sqrt(variance / (len(expected) - 1))
    assert result.standard_error == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("bos", [None, BOS])
@pytest.mark.parametrize("window", [None, 32, 31, 16, 5, 4])
def test_llama_cpps_protocol(model, text, window, bos):
    result = perplexity(model, text, "llama.cpp", window, bos_id=bos)
    window = window or N_CTX
    assert (result.protocol, result.window, result.stride) == ("llama.cpp", window, window)
    assert result.n_scored == len(text) // window * (window - window // 2 - 1)
    check(result, llama_perplexity(text, window, bos))


@pytest.mark.parametrize("bos", [None, BOS])
@pytest.mark.parametrize(
    ("window", "stride"), [(32, None), (32, 32), (32, 1), (32, 7), (31, 15), (5, 3), (4, 4), (10, 10)]
)
def test_hugging_faces_protocol(model, text, window, stride, bos):
    result = perplexity(model, text, "strided", window, stride, bos)
    stride = stride or window // 2
    assert (result.protocol, result.window, result.stride) == ("strided", window, stride)
    check(result, hugging_face(text, window, stride, bos))


@pytest.mark.parametrize("n_tokens", [3, 20, 31, 32, 33, 65])
def test_texts_that_windows_do_not_divide(model, text, n_tokens):
    for stride in (16, 32):
        result = perplexity(model, text[:n_tokens], "strided", 32, stride)
        check(result, hugging_face(text[:n_tokens], 32, stride, None))


def test_bits_per_byte(model, text):
    tokenizer = SimpleNamespace(decode_bytes=lambda ids: b"ab" * sum(id % 3 for id in ids))  # 0, 2 or 4 bytes a token
    result = perplexity(model, text, "strided", 32, 32, tokenizer=tokenizer)
    scored = [id for place, id in enumerate(text) if place % 32]
    bits = math.log2(math.e) * sum(hugging_face(text, 32, 32, None))
    assert result.bits_per_byte == pytest.approx(bits / sum(2 * (id % 3) for id in scored), rel=1e-5)
    assert perplexity(model, text).bits_per_byte is None


def test_overlapping_windows_score_every_token_but_the_first_once():
    for n_tokens, window, stride in [(100, 32, 16), (100, 32, 31), (7, 32, 16), (64, 8, 1)]:
        scored = [i for _, stop, first in windows(n_tokens, "strided", window, stride) for i in range(first, stop)]
        assert scored == list(range(1, n_tokens))


def test_progress(model, text):
    calls = []
    perplexity(model, text, window=32, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(n, 4) for n in (1, 2, 3, 4)]


def test_a_likelihood_of_nothing_is_an_infinite_perplexity(tmp_path):
    params = random_params(CONFIG)
    params["lm_head.weight"] *= 1e4
    path = write_native(tmp_path / "m.safetensors", params, CONFIG, "float32")
    result = perplexity(open_model(path), list(range(32)))
    assert result.nll > 1000
    assert result.perplexity == math.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 33}, "window is 33; it must be from 4 to 32, the context of this model"),
        ({"window": 3}, "window is 3; it must be from 4 to 32"),
        ({"stride": 5}, "stride is 5; protocol llama.cpp has none"),
        ({"protocol": "strided", "stride": 0}, "stride is 0; it must be from 1 to 32, the window"),
        ({"protocol": "strided", "stride": 20, "window": 16}, "stride is 20; it must be from 1 to 16"),
        ({"protocol": "other"}, "protocol is 'other'; choose one of llama.cpp, strided"),
        ({"ids": [1] * 31}, "the text has 31 tokens; this needs at least 32"),
        ({"ids": [1], "protocol": "strided"}, "the text has 1 tokens; this needs at least 2"),
    ],
)
def test_bad_requests(model, text, options, message):
    with pytest.raises(ValueError, match=message):
        perplexity(**{"engine": model, "ids": text, **options})
