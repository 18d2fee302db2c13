import threading

import numpy as np
import pytest
import reference
from folders import RECITED, TOKENIZER, reciter, text_config, write_text_model
from models import VARIANTS, config_of, native_params, open_model, random_params, read, write_native

import nbgpt
from nbgpt import weights
from nbgpt.analysis.trace import N_TOP, trace
from nbgpt.conversion.convert import convert
from nbgpt.engine.engine import Engine
from nbgpt.formats import Checkpoint, Tensor
from nbgpt.model import Model

NUMBERS = ("norms", "added", "mean_before", "variance_before", "mean_after", "variance_after")


def open_traced(path, config, params, dtype="float32"):
    return open_model(write_native(path, params, config, dtype), n_threads=2)


def traced_by_reference(ids, params, config):
    """Attention, the lens' probabilities of all tokens, and the numbers of every place of the stream, in float64."""
    attention, lens, places = [], [], []
    wte = params["wte.weight"]
    head = (wte if config.tied_embeddings else params["lm_head.weight"]).T
    ln_f, epsilon = (params["ln_f.weight"], params["ln_f.bias"]), config.layer_norm_epsilon

    def note(x, added, normed):
        norms = [np.sqrt((array**2).sum(axis=1)) for array in (x, added)]
        places.append([*norms, x.mean(axis=1), x.var(axis=1), normed.mean(axis=1), normed.var(axis=1)])

    x = added = wte[ids].astype(np.float64) + params["wpe.weight"][: len(ids)]
    for layer in range(config.n_layer):
        lens.append(reference.softmax(reference.layer_norm(x, *ln_f, epsilon) @ head))
        block = reference.part(params, f"h.{layer}.")
        attn, mlp = reference.part(block, "attn."), reference.part(block, "mlp.")
        ln_1 = reference.layer_norm(x, block["ln_1.weight"], block["ln_1.bias"], epsilon)
        note(x, added, ln_1)
        scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        scale /= layer + 1 if config.scale_attn_by_inverse_layer_idx else 1
        qkv = np.split(reference.linear(ln_1, attn["c_attn.weight"], attn["c_attn.bias"]), 3, axis=1)
        heads = zip(*(np.split(one, config.n_head, axis=1) for one in qkv[:2]), strict=True)
        attention.append([reference.attention(q, k, np.eye(len(ids)), scale) for q, k in heads])
        added = reference.causal_self_attention(ln_1, attn, config.n_head, scale)
        x = x + added
        ln_2 = reference.layer_norm(x, block["ln_2.weight"], block["ln_2.bias"], epsilon)
        note(x, added, ln_2)
        added = reference.mlp(ln_2, mlp, config.activation)
        x = x + added
    final = reference.layer_norm(x, *ln_f, epsilon)
    note(x, added, final)
    lens.append(reference.softmax(final @ head))
    return np.array(attention), np.array(lens), dict(zip(NUMBERS, np.array(places).swapaxes(0, 1), strict=True))


def check(traced, attention, lens, numbers, tolerance):
    """tolerance: of probabilities, and of the other numbers relative to the largest of their kind."""
    np.testing.assert_allclose(traced.attention, attention, rtol=0, atol=tolerance)
    np.testing.assert_allclose(traced.attention.sum(axis=-1), 1, rtol=0, atol=1e-5)
    at_ids = np.take_along_axis(lens, traced.lens_ids.astype(np.int64), axis=-1)
    np.testing.assert_allclose(traced.lens_probabilities, at_ids, rtol=0, atol=tolerance)
    likeliest = -np.sort(-lens, axis=-1)[..., :N_TOP]
    np.testing.assert_allclose(traced.lens_probabilities, likeliest, rtol=0, atol=tolerance)
    for name, expected in numbers.items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(getattr(traced, name), expected, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("name", VARIANTS)
def test_against_the_reference(tmp_path, rng, name):
    config = config_of(**{"n_layer": 3, **VARIANTS[name]})
    params = random_params(config)
    model = open_traced(tmp_path / "model.safetensors", config, params)
    ids = rng.integers(0, config.n_vocab, 30).tolist()
    traced = trace(model, TOKENIZER, ids)
    assert traced.ids.tolist() == ids
    assert (traced.attention[:, :, ~np.tri(30, dtype=bool)] == 0).all()
    check(traced, *traced_by_reference(ids, params, config), tolerance=2e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float16", 1e-4), ("bfloat16", 0.02), ("int8", 0.02), ("int4", 0.02)]
)
def test_quantized_weights_against_the_reference(tmp_path, rng, dtype, tolerance):
    """It computes with the numbers of the file too; what is left is how activations round."""
    config = config_of(n_embd=96, n_layer=3)
    model = open_traced(tmp_path / "model.safetensors", config, random_params(config), dtype)
    ids = rng.integers(0, config.n_vocab, 30).tolist()
    expected = traced_by_reference(ids, native_params(model.weights), config)
    check(trace(model, TOKENIZER, ids), *expected, tolerance)


def test_heads_and_mlps_against_the_reference(tmp_path, rng):
    config = config_of(n_layer=3, **VARIANTS["inverse_layer_idx"])
    params = random_params(config)
    model = open_traced(tmp_path / "model.safetensors", config, params)
    ids = rng.integers(0, config.n_vocab, 30).tolist()
    traced = trace(model, TOKENIZER, ids)

    def close(found, expected):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())

    x = params["wte.weight"][ids].astype(np.float64) + params["wpe.weight"][:30]
    for layer in range(config.n_layer):
        close(traced.stream[2 * layer], x)
        block = reference.part(params, f"h.{layer}.")
        attn, mlp = reference.part(block, "attn."), reference.part(block, "mlp.")
        normed = reference.layer_norm(x, block["ln_1.weight"], block["ln_1.bias"])
        qkv = np.split(reference.linear(normed, attn["c_attn.weight"], attn["c_attn.bias"]), 3, axis=1)
        q, k, v = (np.array(np.split(one, config.n_head, axis=1)) for one in qkv)
        for found, expected in ((traced.q, q), (traced.k, k), (traced.v, v)):
            close(found[layer], expected)
        mixed = [reference.attention(*head, config.attention_scale(layer)) for head in zip(q, k, v, strict=True)]
        close(traced.attended[layer], mixed)
        rows = attn["c_proj.weight"].reshape(config.n_head, -1, config.n_embd)
        close(traced.head_outputs(layer), np.array(mixed) @ rows)
        x = x + reference.causal_self_attention(normed, attn, config.n_head, config.attention_scale(layer))
        close(traced.stream[2 * layer + 1], x)
        close(traced.stream[2 * layer] + traced.head_outputs(layer).sum(axis=0) + attn["c_proj.bias"], x)
        normed = reference.layer_norm(x, block["ln_2.weight"], block["ln_2.bias"])
        inner = reference.linear(normed, mlp["c_fc.weight"], mlp["c_fc.bias"])
        close(traced.activations[layer], reference.gelu_new(inner))
        x = x + reference.mlp(normed, mlp, config.activation)
    close(traced.stream[-1], x)


def test_surprise_and_rank(tmp_path, rng):
    config = config_of()
    params = random_params(config)
    model = open_traced(tmp_path / "model.safetensors", config, params)
    ids = rng.integers(0, config.n_vocab, 150).tolist()
    traced = trace(model, TOKENIZER, ids)
    expected = reference.softmax(reference.gpt2(ids, params, config))
    own = expected[np.arange(149), ids[1:]]
    np.testing.assert_allclose(traced.surprisal[1:], -np.log2(own), rtol=1e-3)
    assert traced.ranks[1:].tolist() == [1 + int((row > p).sum()) for row, p in zip(expected, own, strict=False)]
    assert np.isnan(traced.surprisal[0])
    assert traced.ranks[0] == 0
    logits = np.log(traced.lens_probabilities[-1, :, 0].astype(np.float64)) + traced.log_sum_exp
    np.testing.assert_allclose(logits, read(model, ids).max(axis=1), rtol=1e-5)


def test_a_text_of_several_parts_and_a_whole_context(tmp_path, rng):
    config = config_of()
    params = random_params(config)
    model = open_traced(tmp_path / "model.safetensors", config, params)
    ids = rng.integers(0, config.n_vocab, config.n_ctx).tolist()
    check(trace(model, TOKENIZER, ids), *traced_by_reference(ids, params, config), tolerance=2e-5)


@pytest.mark.parametrize("n_layer", [1, 2])
def test_a_few_tokens(tmp_path, n_layer):
    """Which the engine reads in another way than many, if it runs all of the layers."""
    config = config_of(n_layer=n_layer)
    params = random_params(config)
    model = open_traced(tmp_path / "model.safetensors", config, params)
    for ids in ([7], [7, 11], [3, 4, 5]):
        check(trace(model, TOKENIZER, ids), *traced_by_reference(ids, params, config), tolerance=2e-5)
    assert (trace(model, TOKENIZER, [7]).attention == 1).all()


@pytest.mark.parametrize(("dtype", "kv_dtype"), [("float32", "float32"), ("int8", "float32"), ("int8", "float16")])
def test_the_last_prediction_is_that_of_the_plain_path(tmp_path, rng, dtype, kv_dtype):
    """Exactly: the same ids first, and their probabilities as near as a softmax in float32 can be."""
    config = config_of(n_vocab=300)
    path = write_native(tmp_path / "model.safetensors", random_params(config), config, dtype)
    model = Engine(weights.load(path), 2, kv_dtype)
    ids = rng.integers(0, config.n_vocab, 150).tolist()
    traced, logits = trace(model, TOKENIZER, ids), read(model, ids)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :N_TOP]
    np.testing.assert_array_equal(traced.lens_ids[-1], order)
    expected = reference.softmax(logits.astype(np.float64))
    at_ids = np.take_along_axis(expected, order, axis=1)
    np.testing.assert_allclose(traced.lens_probabilities[-1], at_ids, rtol=1e-5)


def test_outlier_channels(tmp_path, rng):
    """What attention adds is found by a subtraction, which must survive a channel of 3e3."""
    config = config_of(n_embd=96)
    params = random_params(config)
    params["wpe.weight"][:, 7] = 3e3
    model = open_traced(tmp_path / "model.safetensors", config, params)
    ids = rng.integers(0, config.n_vocab, 40).tolist()
    attention, lens, numbers = traced_by_reference(ids, params, config)
    traced = trace(model, TOKENIZER, ids)
    check(traced, attention, lens, numbers, tolerance=1e-4)
    np.testing.assert_allclose(traced.added, numbers["added"], rtol=1e-3)


@pytest.fixture
def story(tmp_path):
    return Model(weights.load(write_text_model(tmp_path / "recital.safetensors", *reciter())), 2)


def test_from_text(story):
    text = "café 😀"
    traced = story.trace(text, bos=True)
    assert isinstance(traced, nbgpt.Trace)
    assert traced.ids.tolist() == story.encode(text, bos=True)
    assert len(story.trace(text).ids) == len(traced.ids) - 1
    whole = "".join(traced.tokens[1:])
    assert whole.startswith("caf")
    assert "\\xf0\\x9f" in whole  # the smile is spread over several tokens
    assert all(traced.texts[token] for token in traced.lens_ids.ravel().tolist())
    recited = [traced.texts[token] for token in traced.lens_ids[-1, :, 0].tolist()]
    assert recited == [story.trace(RECITED).tokens[i] for i in range(len(traced.ids))]
    assert story.trace("").ids.tolist() == [story.tokenizer.eos_id]


def test_a_notebook_shows_a_summary(story):
    html = story.trace("it was", bos=True)._repr_html_()
    assert html.count("<code") == 3 + 5
    assert "bits a token" in html


def test_head_outputs_of_a_closed_model(tmp_path):
    config = config_of()
    model = open_traced(tmp_path / "model.safetensors", config, random_params(config))
    traced = trace(model, TOKENIZER, [1, 2, 3])
    expected = traced.head_outputs(1)
    model.close()
    np.testing.assert_array_equal(traced.head_outputs(1), expected)  # the trace keeps the file mapped


def test_a_vocabulary_that_is_padded(tmp_path):
    config = text_config(n_vocab=TOKENIZER.n_vocab + 7)
    params = random_params(config)
    params["wte.weight"][-1] *= 100
    model = open_traced(tmp_path / "model.safetensors", config, params)
    last = config.n_vocab - 1
    assert trace(model, TOKENIZER, [1, 2, 3]).texts[last] == f"<{last}>"


def test_a_text_that_does_not_fit(story):
    with pytest.raises(ValueError, match=r"the text has 121 tokens; it must have from 1 to 120, this model's context"):
        trace(story.engine, TOKENIZER, [1] * 121)
    with pytest.raises(ValueError, match="the text has 0 tokens"):
        trace(story.engine, TOKENIZER, [])


def test_a_trace_leaves_nothing_behind(story):
    expected = story.generate(greedy=True).text
    stream = story.stream(greedy=True)
    begun = next(stream)
    story.trace("it was a dark and stormy night")
    assert begun + "".join(stream) == expected
    del stream
    assert story.engine.kv_bytes_in_use == 0


def test_tracing_while_others_generate(tmp_path):
    config = text_config(n_ctx=200)
    tensors = {name: Tensor(one.shape, lambda one=one: one) for name, one in random_params(config).items()}
    convert(Checkpoint(config, tensors, []), "float32", tmp_path / "model.safetensors")
    engine = open_model(tmp_path / "model.safetensors", n_threads=2)
    ids, alone = list(range(150)), trace(engine, TOKENIZER, list(range(150)))
    done = threading.Event()

    def disturb():
        while not done.is_set():
            list(engine.logits([5] * 140))

    other = threading.Thread(target=disturb)
    other.start()
    try:
        together = [trace(engine, TOKENIZER, ids) for _ in range(5)]
    finally:
        done.set()
        other.join()
    for traced in together:
        for name in ("attention", "lens_ids", "lens_probabilities", *NUMBERS):
            np.testing.assert_array_equal(getattr(traced, name), getattr(alone, name), err_msg=name)


def test_keys_that_are_rounded_in_the_cache(tmp_path, rng):
    """Attention is what the rounded keys make of it: with scores in the hundreds, float16 can be told apart."""
    config = config_of(n_layer=1)
    params = random_params(config)
    params["h.0.attn.c_attn.weight"] *= 10
    params["h.0.attn.c_proj.weight"][:] = 0
    path = write_native(tmp_path / "model.safetensors", params, config, "float32")
    ids = rng.integers(0, config.n_vocab, 30).tolist()
    ln_1 = reference.part(params, "h.0.ln_1.")
    x = params["wte.weight"][ids] + params["wpe.weight"][:30]
    normed = reference.layer_norm(x.astype(np.float64), ln_1["weight"], ln_1["bias"])
    qkv = reference.linear(normed, params["h.0.attn.c_attn.weight"], params["h.0.attn.c_attn.bias"])
    q, k, _ = (np.split(one, config.n_head, axis=1) for one in np.split(qkv, 3, axis=1))
    attention = {}
    for dtype in ("float32", "float16"):
        traced = trace(Engine(weights.load(path), 2, dtype), TOKENIZER, ids)
        attention[dtype] = traced.attention[0]
        heads = (reference.attention(a, b.astype(dtype), np.eye(30), 16**-0.5) for a, b in zip(q, k, strict=True))
        np.testing.assert_allclose(traced.attention[0], list(heads), rtol=0, atol=2e-4)
    assert np.abs(attention["float32"] - attention["float16"]).max() > 2e-3
