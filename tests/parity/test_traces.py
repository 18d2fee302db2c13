"""Traces of story-34m against transformers in float64: its attentions, hidden states, and what its modules see."""

import numpy as np
import pytest
from models import open_model, read
from test_transformers import PROMPTS, needs_story, peer_of, story, torch  # noqa: F401  # story is a fixture

from nbgpt.analysis.passes import edited_logits
from nbgpt.analysis.trace import N_TOP, trace
from nbgpt.conversion.convert import convert
from nbgpt.formats import open_checkpoint
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


@pytest.mark.parametrize("settings", [{}, {"scale_attn_by_inverse_layer_idx": True}, {"tie_word_embeddings": False}])
def test_edits_are_those_of_hooks(tmp_path, settings):
    """`logits(edit=...)` beside forward hooks that change what each block and ln_f read."""
    peer, ids = peer_of(**settings), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
    peer.save_pretrained(tmp_path / "peer")
    convert(open_checkpoint(tmp_path / "peer"), "float32", tmp_path / "model.safetensors")
    engine = open_model(tmp_path / "model.safetensors", 2)
    direction = np.random.default_rng(1).standard_normal(peer.config.n_embd).astype(np.float32)

    def edit(layer, stream):
        stream[3] += (1 + layer) * direction
        return stream * np.float32(1 - 0.1 * (layer == 2))

    def hook_of(layer):
        return lambda module, inputs: (torch.from_numpy(edit(layer, inputs[0][0].numpy()))[None], *inputs[1:])

    modules = [*peer.transformer.h, peer.transformer.ln_f]
    hooks = [module.register_forward_pre_hook(hook_of(layer)) for layer, module in enumerate(modules)]
    with torch.inference_mode():
        theirs = peer(torch.tensor(ids)[None]).logits[0].numpy()
    for hook in hooks:
        hook.remove()
    ours = edited_logits(engine, ids, edit)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())
    plain = read(engine, ids)
    assert np.abs(ours - plain)[3:].max() > 0.1
