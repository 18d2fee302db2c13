"""Against transformers' GPT2LMHeadModel, on checkpoints that it writes itself: logits in float32 and greedy text.

A group of its own, since it needs torch: install the extra `parity` to run it.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import reference
from models import generate, open_model, random_params, read

from nbgpt.config import GPT2Config
from nbgpt.conversion.convert import convert
from nbgpt.engine.kv_cache import Sequence
from nbgpt.formats import open_checkpoint
from nbgpt.tokenizer import ByteBPE

torch = pytest.importorskip("torch", reason="the parity group needs torch and transformers: pip install nbgpt[parity]")
transformers = pytest.importorskip("transformers", reason="the parity group needs it: pip install nbgpt[parity]")

TOLERANCE = 1e-5  # relative to the largest logit
SMALL = {"n_layer": 3, "n_head": 3, "n_embd": 60, "vocab_size": 301, "n_positions": 150}
PLAIN = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}
VARIANTS = {
    "plain": {},
    "n_inner": {"n_inner": 100},
    "gelu": {"activation_function": "gelu"},
    "relu": {"activation_function": "relu"},
    **{name: {"activation_function": name} for name in ("silu", "swish", "tanh", "quick_gelu", "gelu_python")},
    **{name: {"activation_function": name} for name in ("gelu_fast", "gelu_pytorch_tanh", "gelu_accurate")},
    "unscaled": {"scale_attn_weights": False},
    "inverse_layer_idx": {"scale_attn_by_inverse_layer_idx": True},
    "reorder_and_upcast": {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    "epsilon": {"layer_norm_epsilon": 1e-2},
    "untied": {"tie_word_embeddings": False},
    "other sizes": {"n_head": 2, "n_embd": 128, "vocab_size": 1000, "n_positions": 70},
}
STORY = Path(os.environ.get("NBGPT_STORY", Path(__file__).parents[3] / "shared/models/story-34m"))
needs_story = pytest.mark.skipif(
    not (STORY / "config.json").exists(), reason=f"no story-34m in {STORY}: set NBGPT_STORY to its original folder"
)


def peer_of(seed=0, **settings):
    """A GPT2LMHeadModel with the random weights of models.py, in which every setting matters."""
    peer = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**SMALL, **PLAIN, **settings})).eval()
    params = random_params(GPT2Config.from_hugging_face(peer.config.to_dict()), seed)
    named = {name if name.startswith("lm_head") else f"transformer.{name}": one for name, one in params.items()}
    left = peer.load_state_dict({name: torch.from_numpy(one) for name, one in named.items()}, strict=False)
    assert set(left.missing_keys) <= {"lm_head.weight"}  # the tied one
    assert not left.unexpected_keys
    return peer


def logits_of(peer, text):
    with torch.inference_mode():
        return peer(torch.from_numpy(text)[None]).logits[0].numpy()


def ours(folder, output):
    """Our model of a folder that transformers wrote."""
    convert(open_checkpoint(folder), "float32", output)
    return open_model(output, n_threads=2)


def check(logits, expected):
    assert np.abs(logits - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_of_every_variant(tmp_path, rng, name):
    peer = peer_of(**VARIANTS[name])
    peer.save_pretrained(tmp_path)
    text = rng.integers(0, peer.config.vocab_size, peer.config.n_positions)
    check(read(ours(tmp_path, tmp_path / "ours.safetensors"), text), logits_of(peer, text))


@pytest.mark.parametrize("name", VARIANTS)
def test_reference_of_every_variant(rng, name):
    """The reference is the same function, to the precision of float64."""
    peer = peer_of(**VARIANTS[name]).double()
    config = GPT2Config.from_hugging_face(peer.config.to_dict())
    text = rng.integers(0, config.n_vocab, config.n_ctx)
    expected = logits_of(peer, text)
    np.testing.assert_allclose(
        reference.gpt2(text, random_params(config), config), expected, rtol=0, atol=1e-10 * np.abs(expected).max()
    )


NUMERIC = ["gelu", "relu", "silu", "tanh", "quick_gelu", "unscaled", "inverse_layer_idx", "epsilon", "untied"]


@pytest.mark.parametrize("name", NUMERIC)
def test_each_variant_moves_the_logits(rng, name):
    """By more than a hundred times the tolerance: one that is left out would not go unnoticed."""
    peer, plain = peer_of(**VARIANTS[name]), peer_of()
    text = rng.integers(0, 301, 100)
    expected = logits_of(peer, text)
    assert np.abs(logits_of(plain, text) - expected).max() > 100 * TOLERANCE * np.abs(expected).max()


def test_the_124m_shape(tmp_path, rng):
    """With the initial weights of a GPT-2 that is about to be trained (Radford et al. 2019, section 2.3)."""
    torch.manual_seed(0)
    peer = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    for name, one in peer.named_parameters():  # biases and gains begin as zeros and ones: make them matter
        if one.ndim == 1:
            torch.nn.init.normal_(one, float(name.endswith("weight")), 0.1)
    peer.save_pretrained(tmp_path)
    text = rng.integers(0, 50257, 80)
    check(read(ours(tmp_path, tmp_path / "ours.safetensors"), text), logits_of(peer, text))


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """story-34m as (theirs, ours)."""
    peer = transformers.GPT2LMHeadModel.from_pretrained(STORY, dtype=torch.float32).eval()
    return peer, ours(STORY, tmp_path_factory.mktemp("story") / "story-34m.safetensors")


PROMPTS = """\
It was a dark and stormy night, and
The captain looked at the sea and said
"My dear Elizabeth," said her mother,
Once upon a time there was a poor
In the year of the great frost the
He opened the letter with trembling hands.
There are few things in this world so
"Who goes there?" cried the sentry, and
The old house stood at the end of
She had never been to London before,
When the king heard of this he was
I was born in the north of England
"Nonsense!" said the doctor. "You are
At last the train came to a stop
The wind had fallen, and the moon
My father was a man of few words
They walked for some time in silence, until
"If you please, sir," said the boy
On the following morning the two friends met
The forest was full of strange sounds,
"""


@needs_story
def test_story_logits(story):
    peer, model = story
    text = np.array([50256, *ByteBPE.shipped().encode(PROMPTS)])
    check(read(model, text), logits_of(peer, text))


@needs_story
def test_story_continuations(story):
    """100 tokens for each of 20 prompts, greedily; prompts are cut to one length, so that they make a batch."""
    peer, model = story
    tokenizer = ByteBPE.shipped()
    prompts = [[50256, *tokenizer.encode(line)[:6]] for line in PROMPTS.splitlines()]
    assert len(prompts) == 20
    with torch.inference_mode():
        settings = {"max_new_tokens": 100, "min_new_tokens": 100, "do_sample": False, "pad_token_id": 50256}
        batch = torch.tensor(prompts)
        expected = peer.generate(batch, attention_mask=torch.ones_like(batch), **settings)
    sequences = [Sequence() for _ in prompts]
    continuations = [prompt.copy() for prompt in prompts]
    logits = np.stack([model.runner.append(one, prompt).copy() for one, prompt in zip(sequences, prompts, strict=True)])
    for _ in range(100):
        logits[:, 50256] = -np.inf  # as min_new_tokens has it
        ids = logits.argmax(axis=1).tolist()
        for one, token in zip(continuations, ids, strict=True):
            one.append(token)
        logits = model.runner.decode(sequences, ids)
    assert continuations == expected.tolist()


def test_the_last_position_of_the_context(tmp_path):
    """A prompt of n_ctx tokens and one new token: the last one is drawn and never read."""
    peer = peer_of(n_positions=24)
    peer.save_pretrained(tmp_path)
    text = np.random.default_rng(0).integers(0, 301, 24)
    with torch.inference_mode():
        ids = torch.from_numpy(text)[None]
        settings = {"max_new_tokens": 1, "do_sample": False, "pad_token_id": 0}
        expected = peer.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, 24:].tolist()
    assert generate(ours(tmp_path, tmp_path / "ours.safetensors"), text.tolist(), 1) == expected
