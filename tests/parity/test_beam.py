"""Beam search against transformers' on story-34m: the same continuations with the same scores.

A full stop stands in for the end of text, so that beams end early and often.
"""

import numpy as np
import pytest
from test_transformers import PROMPTS, STORY, needs_story, ours

from nbgpt.decoding.beam_search import beam_search
from nbgpt.tokenizer import ByteBPE

torch = pytest.importorskip("torch", reason="the parity group needs torch and transformers: pip install nbgpt[parity]")
transformers = pytest.importorskip("transformers", reason="the parity group needs it: pip install nbgpt[parity]")

pytestmark = needs_story
TOKENIZER = ByteBPE.shipped()
FULL_STOP = TOKENIZER.encode(".")[0]
TEXTS = [[50256, *TOKENIZER.encode(line)] for line in PROMPTS.splitlines()]


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """story-34m as (theirs, ours)."""
    peer = transformers.GPT2LMHeadModel.from_pretrained(STORY, dtype=torch.float32).eval()
    return peer, ours(STORY, tmp_path_factory.mktemp("story") / "story-34m.safetensors")


def check(story, ids, num_beams, max_tokens=16, eos_id=FULL_STOP, rtol=0.0, **settings):
    """Find all beams' continuations, the same as they do -> how ours ended."""
    peer, model = story
    found = beam_search(model, ids, num_beams, max_tokens, num_return=num_beams, eos_ids={eos_id} - {None}, **settings)
    assert model.kv_bytes_in_use == 0
    lengths = {"max_new_tokens": max_tokens, "eos_token_id": eos_id, "pad_token_id": eos_id, "do_sample": False}
    outputs = {"num_return_sequences": num_beams, "return_dict_in_generate": True, "output_scores": True}
    batch = torch.tensor([ids])
    mask = torch.ones_like(batch)
    with torch.inference_mode():
        result = peer.generate(batch, attention_mask=mask, num_beams=num_beams, **lengths, **outputs, **settings)
    continuations = [row[len(ids) :] for row in result.sequences.tolist()]
    assert [one.ids for one in found] == [row[: (*row, eos_id).index(eos_id)] for row in continuations]
    assert [one.finish_reason for one in found] == ["stop" if eos_id in row else "length" for row in continuations]
    if num_beams > 1:
        scores = result.sequences_scores.numpy()
        np.testing.assert_allclose([one.score for one in found], scores, rtol=rtol, atol=1e-4)
    return [one.finish_reason for one in found]


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("num_beams", [2, 4])
def test_the_n_best_and_their_scores(story, num_beams, length_penalty, early_stopping):
    for ids in TEXTS[:4]:
        check(story, ids, num_beams, length_penalty=length_penalty, early_stopping=early_stopping)


def test_some_of_them_end(story):
    """Or the test above would be about lengths alone."""
    reasons = [reason for ids in TEXTS[::2] for reason in check(story, ids, 4, early_stopping=True)]
    assert min(reasons.count("stop"), reasons.count("length")) > 10


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0])
def test_other_length_penalties(story, length_penalty):
    """Sums of log-probabilities, and more: large numbers."""
    for ids in TEXTS[:4]:
        check(story, ids, 3, rtol=1e-5, length_penalty=length_penalty)


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
def test_one_beam_is_greedy(story, early_stopping):
    for ids in TEXTS[:8]:
        check(story, ids, 1, early_stopping=early_stopping)


def test_over_the_border_of_a_page(story):
    assert set(check(story, TEXTS[0], 4, max_tokens=80, eos_id=50256)) == {"length"}
