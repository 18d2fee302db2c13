"""Digests of logits' bits and of seeded texts, committed: what nbgpt computes stays what it is, on every machine.

Two sets: CPUs with fused multiply-add ("fma") all have the same bits, those without ("no-fma") have others.

A change of a kernel's arithmetic or of its order of sums may change all digests; one of a sampler's or of the tokenizer
those of texts; other weights in the embedded file those made with it. Moving code, other tiles, threads, instruction
sets, types of caches or versions of NumPy and Numba must change none. A commit that changes digests says which, why the
bits had to change, and how the new ones were found to be as near to the reference as the old. To write them anew:

    python tests/test_digests.py; NUMBA_CPU_NAME=generic python tests/test_digests.py
"""

import json

import numpy as np
import pytest
from models import read_together

import nbgpt
from nbgpt.abi.targets import current_target
from nbgpt.config import GPT2Config
from nbgpt.engine.engine import Engine
from nbgpt.paths import shipped
from nbgpt.text.options import Options
from nbgpt.verification.digests import digest, digest_of_ids, prompts_of, text_digest
from nbgpt.verification.exact import SIZES, exact_weights
from nbgpt.verification.machine import EXPECTED, KV_DTYPES, exact_logits, file_digest
from nbgpt.verification.texts import DEFAULTS, STORY, TEXTS

DTYPES = ("float32", "float16", "bfloat16", "int8", "int4")
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "tall": {"type": "boolean"}}}
SCHEMA |= {"required": ["name", "tall"], "additionalProperties": False}
CONSTRAINED = {  # these need the extra `constrain`
    "choice": {"choice": ["was happy", "was sad", "had a dog"]},
    "regex": {"regex": r" had [a-z]{3,9} (cats|dogs)\.", "temperature": 1.2},
    "json_schema": {"json_schema": SCHEMA, "max_tokens": 60},
}
ALL_TEXTS = {**TEXTS, **CONSTRAINED}


def kind_of_cpu() -> str:
    return "fma" if current_target().fma else "no-fma"


def digest_of_text(model: nbgpt.Model, name: str) -> str:
    return text_digest(model, {**DEFAULTS, **ALL_TEXTS[name]})


def search_digests(model: nbgpt.Model) -> dict[str, str]:
    beams = model.beam_search(STORY, 4, num_return=3, max_tokens=20, length_penalty=0.5)
    contrastive = model.contrastive_search(STORY, alpha=0.6, k=5, max_tokens=30)
    return {"beam": digest_of_ids(beam.tokens for beam in beams), "contrastive": digest_of_ids([contrastive.tokens])}


def embedded_logits_digest(model: nbgpt.Model) -> str:
    return digest(model.logits(model.encode(STORY)))


@pytest.fixture(scope="module")
def expected():
    return json.loads(EXPECTED.read_text())[kind_of_cpu()]


@pytest.fixture(scope="module")
def model():
    with nbgpt.load(threads=2) as model:
        yield model


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_logits(expected, dtype, kv_dtype):
    assert exact_logits(dtype, kv_dtype, 2) == expected["logits"][f"{dtype}, cache {kv_dtype}"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_pass_over_all_rows_has_the_same_bits(expected, dtype):
    """Another way to batch than the package's own: each text after the other, in a single pass."""
    engine = Engine(exact_weights(GPT2Config(**SIZES), dtype), 2, kv_memory=64 << 20)
    found = [digest(logits) for logits in read_together(engine, prompts_of(engine))]
    assert found == expected["logits"][f"{dtype}, cache float32"]


def test_logits_are_numbers():
    engine = Engine(exact_weights(GPT2Config(**SIZES), "int8"), 2, kv_memory=64 << 20)
    assert all(np.isfinite(np.concatenate(list(engine.logits(ids)))).all() for ids in prompts_of(engine))


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_logits_with_another_activation(expected, activation):
    assert exact_logits("float32", "float32", 2, activation=activation) == expected["logits"][activation]


def test_logits_of_the_embedded_model(expected, model):
    assert embedded_logits_digest(model) == expected["embedded logits"]


@pytest.mark.parametrize("name", ALL_TEXTS)
def test_seeded_texts(expected, model, name):
    assert digest_of_text(model, name) == expected["texts"][name]


def test_searches(expected, model):
    assert search_digests(model) == expected["searches"]


def test_every_option_has_a_text():
    used = {"seed", *(name for options in ALL_TEXTS.values() for name in options)}
    assert set(Options.__annotations__) - used == {
        "max_time",
        "draft_model",
        "special",
    }  # none changes which id comes next


def all_digests() -> dict[str, object]:
    logits = {f"{dtype}, cache {kv}": exact_logits(dtype, kv, 2) for dtype in DTYPES for kv in KV_DTYPES}
    logits |= {name: exact_logits("float32", "float32", 2, activation=name) for name in ("gelu", "relu")}
    with nbgpt.load(threads=2) as model:
        return {
            "logits": logits,
            "embedded logits": embedded_logits_digest(model),
            "texts": {name: digest_of_text(model, name) for name in ALL_TEXTS},
            "searches": search_digests(model),
        }


if __name__ == "__main__":
    digests = json.loads(EXPECTED.read_text())
    digests[kind_of_cpu()] = all_digests()
    digests["files"] = {name: file_digest(shipped(name)) for name in digests["files"]}
    EXPECTED.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")
