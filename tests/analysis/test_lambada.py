"""LAMBADA, against the protocol of lm-evaluation-harness in float64."""

import json
import math

import numpy as np
import pytest
from folders import TOKENIZER, ballot, write_text_model
from protocols import CONFIG, check, encode, log_likelihood, share

import nbgpt
from nbgpt.analysis.lambada import LAMBADA
from nbgpt.formats import FormatError

PASSAGES = [
    "It was a dark and stormy night",
    "The Time Traveller (for so it will be convenient to speak of him) was expounding a recondite matter",
    "Naïve café, and the 😀",
    "two words",
    "a line\nand the last",
    "very long " * 100 + "text",
]
TEXT = "".join(json.dumps({"text": passage}) + "\n" for passage in PASSAGES)


def by_the_harness(model=log_likelihood):
    """lm_eval/tasks/lambada/lambada_openai.yaml: doc_to_text, doc_to_target."""
    totals, hits = [], []
    for passage in PASSAGES:
        words = passage.split(" ")
        total, is_greedy = model(*encode(" ".join(words[:-1]), f" {words[-1]}"))
        totals.append(total)
        hits.append(is_greedy)
    return totals, hits


def test_lambada(protocol_model):
    result = LAMBADA.run(protocol_model.engine, protocol_model.tokenizer, LAMBADA.read(TEXT, "file"))
    totals, hits = by_the_harness()
    assert (result.n, result.n_truncated) == (len(PASSAGES), 1)
    assert len(TOKENIZER.encode(PASSAGES[-1])) > CONFIG.n_ctx + 1
    check(result.estimates["acc"], share(hits))
    perplexity = math.exp(-np.mean(totals))
    check(result.estimates["perplexity"], (perplexity, perplexity * np.std(totals, ddof=1) / math.sqrt(6)), 1e-3)


def test_a_word_is_guessed_if_all_its_tokens_are(tmp_path):
    """A model that always writes the same token: it guesses words of one such token."""
    night, *rest = TOKENIZER.encode(" the")
    assert rest == []
    logits = np.zeros(TOKENIZER.n_vocab, np.float32)
    logits[night] = 5
    model = nbgpt.load(write_text_model(tmp_path / "m.safetensors", *ballot(logits)))
    rows = [{"text": "It was the"}, {"text": "It was thethe"}, {"text": "It was a"}]
    examples = LAMBADA.read("\n".join(map(json.dumps, rows)), "file")
    acc = LAMBADA.run(model.engine, model.tokenizer, examples).estimates["acc"]
    assert acc.value == pytest.approx(1 / 3)


@pytest.mark.parametrize("text", ["word", "ends ", " word", "", "  "])
def test_a_text_without_a_last_word(text):
    with pytest.raises(FormatError, match=r"file, line 2: 'text' is .*; wanted (is a text|are words)"):
        LAMBADA.read('{"text": "two words"}\n' + json.dumps({"text": text}), "file")
