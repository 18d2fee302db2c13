"""Digests of logits' bits and of seeded texts, committed: what nbgpt computes stays what it is, on every machine.

Two sets: CPUs with fused multiply-add ("fma") all have the same bits, those without ("no-fma") have others.

A change of a kernel's arithmetic or of its order of sums may change all digests; one of a sampler's or of the tokenizer
those of texts; other weights in the embedded file those made with it. Moving code, other tiles, threads, instruction
sets, types of caches or versions of NumPy and Numba must change none. A commit that changes digests says which, why the
bits had to change, and how the new ones were found to be as near to the reference as the old. To write them anew:

    python tests/test_digests.py; NUMBA_CPU_NAME=generic python tests/test_digests.py
"""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from models import config_of, exact_weights, read_together, whole_numbers

import nbgpt
from nbgpt.abi.targets import current_target
from nbgpt.engine.engine import Engine
from nbgpt.text.options import Options

FILE = Path(__file__).with_name("digests.json")
DTYPES = ("float32", "float16", "int8", "int4")
KV_DTYPES = ("float32", "float16")
SIZES = {"n_embd": 192, "n_head": 8, "n_inner": 320, "n_vocab": 96, "n_ctx": 300}  # matrices without padding
LENGTHS = (1, 70, 290)  # less than a page of the cache, more than one, more than a span of pages
IDS = [whole_numbers(n, n, SIZES["n_vocab"]).tolist() for n in LENGTHS]

STORY = "Once upon a time there was a little girl who"
LONG = "The wind was cold, and the old man walked on along the river. " * 70  # longer than the context
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "tall": {"type": "boolean"}}}
SCHEMA |= {"required": ["name", "tall"], "additionalProperties": False}
EOS = 50256


def even_ids_only(ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
    logits[1::2] = -np.inf
    return logits


TEXTS = {
    "greedy": {"greedy": True, "logprobs": 3},
    "defaults": {},
    "temperature": {"temperature": 1.5, "top_k": 0, "sample": 3},
    "top_k, top_p": {"temperature": 1.2, "top_k": 100, "top_p": 0.9, "bos": False},
    "min_p": {"temperature": 1.5, "top_k": 0, "min_p": 0.05},
    "typical_p": {"top_k": 0, "typical_p": 0.7},
    "epsilon_cutoff, eta_cutoff": {"top_k": 0, "epsilon_cutoff": 0.002, "eta_cutoff": 0.02, "temperature": 1.3},
    "mirostat": {"mirostat_tau": 4.0, "mirostat_eta": 0.3},
    "repetition_penalty": {"greedy": True, "repetition_penalty": 1.3, "max_tokens": 60},
    "presence_penalty, frequency_penalty": {"greedy": True, "presence_penalty": 1.0, "frequency_penalty": 0.5},
    "no_repeat_ngram_size": {"greedy": True, "no_repeat_ngram_size": 2, "max_tokens": 60},
    "dry": {
        "greedy": True,
        "dry_multiplier": 2.0,
        "dry_base": 2.0,
        "dry_allowed_length": 1,
        "dry_sequence_breakers": [","],
        "max_tokens": 60,
    },
    "logit_bias, bad_words": {"logit_bias": {257: 3.0, 11: -2.0}, "bad_words": ["the", [373, 257]]},
    "stop, min_tokens": {"stop": [",", 290], "min_tokens": 12, "max_tokens": 80},
    "ignore_eos": {"logit_bias": {EOS: 8.0}, "ignore_eos": True},
    "prefix, echo": {"prefix": " lived in the", "echo": True},
    "logits_processors": {"logits_processors": [even_ids_only]},
    "choice": {"choice": ["was happy", "was sad", "had a dog"]},
    "regex": {"regex": r" had [a-z]{3,9} (cats|dogs)\.", "temperature": 1.2},
    "json_schema": {"json_schema": SCHEMA, "max_tokens": 60},
    "truncate_left": {"prompt": LONG, "overflow": "truncate_left", "max_tokens": 60},
    "keep_first": {"prompt": LONG, "overflow": "keep_first", "max_tokens": 60},
    "prompt_lookup": {"prompt": LONG[:200], "prompt_lookup": True, "temperature": 0.5},
    "samples": {"prompt": [STORY, "The"], "n": 3, "batch_size": 4, "temperature": 1.1},
}


def kind_of_cpu() -> str:
    return "fma" if current_target().fma else "no-fma"


def digest(values: np.ndarray) -> str:
    return sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()[:16]


def digest_of_ids(*texts: list[int]) -> str:
    return digest(np.array([number for text in texts for number in (len(text), *text)], np.int32))


def logits_digests(dtype: str, kv_dtype: str, **changes) -> list[str]:
    """Of each text's logits; alone and together they have the same."""
    engine = Engine(exact_weights(config_of(**SIZES, **changes), dtype), 2, kv_dtype, kv_memory=64 << 20)
    alone = [np.concatenate(list(engine.logits(ids))) for ids in IDS]
    together = read_together(engine, IDS)
    assert all(np.isfinite(logits).all() for logits in alone)
    digests = [digest(logits) for logits in alone]
    assert digests == [digest(logits) for logits in together]
    return digests


def text_digest(model: nbgpt.Model, name: str) -> str:
    """Of a text's ids, and of the likeliest in their places; log-probabilities are NumPy's, which differ by CPU."""
    options = {"prompt": STORY, "seed": 20, "max_tokens": 24, **TEXTS[name]}
    found = model.generate(**options)
    completions = found if isinstance(found, list) else [found]
    likeliest = [list(token.top) for one in completions for token in one.logprobs or ()]
    return digest_of_ids(*(one.tokens for one in completions), *likeliest)


def search_digests(model: nbgpt.Model) -> dict[str, str]:
    beams = model.beam_search(STORY, 4, num_return=3, max_tokens=20, length_penalty=0.5)
    contrastive = model.contrastive_search(STORY, alpha=0.6, k=5, max_tokens=30)
    return {"beam": digest_of_ids(*(beam.tokens for beam in beams)), "contrastive": digest_of_ids(contrastive.tokens)}


def embedded_logits_digest(model: nbgpt.Model) -> str:
    return digest(model.logits(model.encode(STORY)))


@pytest.fixture(scope="module")
def expected():
    return json.loads(FILE.read_text())[kind_of_cpu()]


@pytest.fixture(scope="module")
def model():
    with nbgpt.load(threads=2) as model:
        yield model


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_logits(expected, dtype, kv_dtype):
    assert logits_digests(dtype, kv_dtype) == expected["logits"][f"{dtype}, cache {kv_dtype}"]


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_logits_with_another_activation(expected, activation):
    assert logits_digests("float32", "float32", activation=activation) == expected["logits"][activation]


def test_logits_of_the_embedded_model(expected, model):
    assert embedded_logits_digest(model) == expected["embedded logits"]


@pytest.mark.parametrize("name", TEXTS)
def test_seeded_texts(expected, model, name):
    assert text_digest(model, name) == expected["texts"][name]


def test_searches(expected, model):
    assert search_digests(model) == expected["searches"]


def test_every_option_has_a_text():
    used = {"seed", *(name for options in TEXTS.values() for name in options)}
    assert set(Options.__annotations__) - used == {
        "max_time",
        "draft_model",
        "special",
    }  # none changes which id comes next


def all_digests() -> dict[str, object]:
    logits = {f"{dtype}, cache {kv}": logits_digests(dtype, kv) for dtype in DTYPES for kv in KV_DTYPES}
    logits |= {name: logits_digests("float32", "float32", activation=name) for name in ("gelu", "relu")}
    with nbgpt.load(threads=2) as model:
        return {
            "logits": logits,
            "embedded logits": embedded_logits_digest(model),
            "texts": {name: text_digest(model, name) for name in TEXTS},
            "searches": search_digests(model),
        }


if __name__ == "__main__":
    digests = json.loads(FILE.read_text()) if FILE.exists() else {}
    digests[kind_of_cpu()] = all_digests()
    FILE.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")
