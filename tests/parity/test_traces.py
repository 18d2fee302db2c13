"""Traces of story-34m against transformers in float64: its attentions, hidden states, and what its modules see."""

import numpy as np
import pytest
from test_transformers import PROMPTS, needs_story, story, torch  # noqa: F401  # story is a fixture

from nbgpt.analysis.trace import N_TOP, trace
from nbgpt.tokenizer import ByteBPE

TOLERANCE = 1e-5  # relative to the largest number of a kind
LIKELY = 5e-5  # of probabilities, which move as far as the scores do that they come from: numbers of tens
IDS = [50256, *ByteBPE.shipped().encode(PROMPTS)[:180]]


@pytest.fixture(scope="module")
def seen(story):  # noqa: F811
    """Our trace; their outputs, and input and output of each of their LayerNorms in the order of the stream."""
    peer, model = story
    peer.double().set_attn_implementation("eager")  # the only one that says what it attends to
    norms = []
    blocks = [norm for block in peer.transformer.h for norm in (block.ln_1, block.ln_2)]
    hooks = [
        norm.register_forward_hook(lambda module, inputs, output: norms.append((inputs[0][0], output[0])))
        for norm in (*blocks, peer.transformer.ln_f)
    ]
    with torch.inference_mode():
        outputs = peer(torch.tensor(IDS)[None], output_attentions=True, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    return trace(model, ByteBPE.shipped(), IDS), outputs, norms


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * max(1, np.abs(theirs).max()))


@needs_story
def test_attentions(seen):
    ours, theirs, _ = seen
    np.testing.assert_allclose(ours.attention, torch.cat(theirs.attentions).numpy(), rtol=0, atol=LIKELY)


@needs_story
def test_hidden_states(seen):
    """Theirs are the stream before each layer, and after the last one what ln_f makes of it."""
    ours, theirs, norms = seen
    states = [state[0].numpy() for state in theirs.hidden_states[:-1]] + [norms[-1][0].numpy()]
    close(ours.norms[::2], [np.linalg.norm(state, axis=1) for state in states])
    places = np.array([before.numpy() for before, _ in norms])
    close(ours.norms, np.linalg.norm(places, axis=2))
    close(ours.added[1:], np.linalg.norm(np.diff(places, axis=0), axis=2))


@needs_story
def test_layer_norms(seen):
    ours, _, norms = seen
    for part, mean, variance in ((0, "mean_before", "variance_before"), (1, "mean_after", "variance_after")):
        values = np.array([pair[part].numpy() for pair in norms], np.float64)
        close(getattr(ours, mean), values.mean(axis=2))
        close(getattr(ours, variance), values.var(axis=2))


@needs_story
def test_logit_lens(seen, story):  # noqa: F811
    ours, _, norms = seen
    peer = story[0]
    with torch.inference_mode():
        streams = torch.stack([before for before, _ in norms[::2]])
        likeliest = peer.lm_head(peer.transformer.ln_f(streams)).softmax(dim=-1).topk(N_TOP, dim=-1)
    np.testing.assert_allclose(ours.lens_probabilities, likeliest.values.numpy(), rtol=0, atol=LIKELY)
    assert (ours.lens_ids == likeliest.indices.numpy()).mean() > 0.999  # two may be as likely as each other
