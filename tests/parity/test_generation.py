"""Options against transformers: the LogitsProcessor classes on the same ids and logits, and whole texts."""

import numpy as np
import pytest
from test_transformers import PROMPTS, STORY, needs_story

import nbgpt
from nbgpt.conversion.convert import convert
from nbgpt.formats import open_checkpoint
from nbgpt.sampling import logits_processors as do

torch = pytest.importorskip("torch", reason="the parity group needs torch and transformers: pip install nbgpt[parity]")
theirs = pytest.importorskip("transformers", reason="the parity group needs it: pip install nbgpt[parity]")

N_VOCAB = 200
IDS = [5, 6, 7, 5, 6, 8, 5, 6]
WORDS = [[3], [5, 6, 9], [6, 10], [7, 11], [1, 5, 6, 12], [8, 5, 6, 13]]
IN_PLACE = {
    "repetition 1.3": (lambda ids, s: do.penalize_repetition(ids, s, 1.3), "RepetitionPenaltyLogitsProcessor", [1.3]),
    "repetition 0.7": (lambda ids, s: do.penalize_repetition(ids, s, 0.7), "RepetitionPenaltyLogitsProcessor", [0.7]),
    **{
        f"{n}-gram": (lambda ids, s, n=n: do.ban_repeated_ngrams(ids, s, n), "NoRepeatNGramLogitsProcessor", [n])
        for n in range(1, 11)
    },
    "bad words": (do.BannedWords([tuple(word) for word in WORDS]), "NoBadWordsLogitsProcessor", [WORDS]),
    "bias": (
        lambda ids, s: do.add_bias(ids, s, {3: 2.5, 9: -1.0}),
        "SequenceBiasLogitsProcessor",
        [{(3,): 2.5, (9,): -1.0}],
    ),
}
TRUNCATIONS = {
    **{f"top-k {k}": (do.keep_top_k, "TopKLogitsWarper", k) for k in (1, 5, 50, 300)},
    **{f"top-p {p}": (do.keep_top_p, "TopPLogitsWarper", p) for p in (0.01, 0.3, 0.9, 0.999)},
    **{f"min-p {p}": (do.keep_min_p, "MinPLogitsWarper", p) for p in (0.001, 0.05, 0.5, 1.0)},
    **{f"typical-p {p}": (do.keep_typical_p, "TypicalLogitsWarper", p) for p in (0.01, 0.2, 0.9, 0.999)},
    **{f"epsilon {p}": (do.keep_epsilon, "EpsilonLogitsWarper", p) for p in (1e-4, 0.01, 0.1, 0.9)},
    **{f"eta {p}": (do.keep_eta, "EtaLogitsWarper", p) for p in (1e-4, 0.01, 0.1, 0.9)},
}


def ask(name, arguments, ids, scores):
    """What transformers makes of scores [n_vocab] after ids."""
    made = getattr(theirs, name)(*arguments)
    return made(torch.tensor([ids]), torch.from_numpy(scores.copy())[None])[0].numpy()


@pytest.fixture(params=[0.3, 2, 8])
def scores(rng, request):
    return (rng.standard_normal(N_VOCAB) * request.param).astype(np.float32)


@pytest.mark.parametrize("ids", [IDS, IDS[:1], IDS[:3]])
@pytest.mark.parametrize(("process", "name", "arguments"), IN_PLACE.values(), ids=IN_PLACE)
def test_penalties_and_bans(scores, ids, process, name, arguments):
    expected = ask(name, arguments, ids, scores)
    process(np.array(ids, np.int32), scores)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


@pytest.mark.parametrize(("keep", "name", "amount"), TRUNCATIONS.values(), ids=TRUNCATIONS)
def test_truncations(scores, keep, name, amount):
    expected = ask(name, [amount], IDS, scores)
    np.testing.assert_array_equal(np.where(keep(scores, amount), scores, -np.inf), expected)


@pytest.mark.parametrize(("keep", "name", "amount"), TRUNCATIONS.values(), ids=TRUNCATIONS)
def test_truncations_of_what_is_left(scores, keep, name, amount):
    """After another: what has been dropped has no part in it."""
    scores[::3] = -np.inf
    left = np.isfinite(scores)
    expected = ask(name, [amount], IDS, scores)
    np.testing.assert_array_equal(np.where(keep(scores[left], amount), scores[left], -np.inf), expected[left])


# The whole loop on real weights


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """story-34m as (theirs, ours)."""
    path = tmp_path_factory.mktemp("story") / "story-34m.safetensors"
    convert(open_checkpoint(STORY), "float32", path)
    return theirs.GPT2LMHeadModel.from_pretrained(STORY, dtype=torch.float32).eval(), nbgpt.load(path)


GREEDY = {
    "repetition penalty": ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
    "no repeated 3-gram": ({"no_repeat_ngram_size": 3}, {"no_repeat_ngram_size": 3}),
    "bad words": (
        {"bad_words": ["the", "was", [262, 1755]]},
        {"bad_words_ids": [[1169], [262], [9776], [373], [262, 1755]]},
    ),
    "min tokens": ({"min_tokens": 40}, {"min_new_tokens": 40}),
    "bias": ({"logit_bias": {13: -3.0, 11: 2.0}}, {"sequence_bias": {(13,): -3.0, (11,): 2.0}}),
    "all of them": (
        {"repetition_penalty": 1.2, "no_repeat_ngram_size": 4, "bad_words": [[11, 290]], "logit_bias": {198: -2.0}},
        {
            **{"repetition_penalty": 1.2, "no_repeat_ngram_size": 4, "bad_words_ids": [[11, 290]]},
            "sequence_bias": {(198,): -2.0},
        },
    ),
}


@needs_story
@pytest.mark.parametrize(("options", "their_options"), GREEDY.values(), ids=GREEDY)
def test_story_continuations(story, options, their_options):
    """40 greedy tokens for each of 5 prompts, ours as one batch of different lengths, theirs one by one."""
    peer, model = story
    prompts = PROMPTS.splitlines()[:5]
    ours = model.generate(prompts, bos=True, greedy=True, max_tokens=40, **options)
    for prompt, completion in zip(prompts, ours, strict=True):
        ids = torch.tensor([model.encode(prompt, bos=True)])
        settings = {"max_new_tokens": 40, "do_sample": False, "pad_token_id": 50256, **their_options}
        with torch.inference_mode():
            expected = peer.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, ids.shape[1] :].tolist()
        if expected[-1] == 50256:
            expected.pop()
        assert completion.tokens == expected


@needs_story
def test_story_distribution(story):
    """What is left to draw from after temperature, min-p and typical-p, seen by which ids come in 300 samples."""
    peer, model = story
    prompt, asked = "It was a dark and", {"temperature": 1.3, "top_k": 0, "min_p": 0.02, "typical_p": 0.8}
    ids = torch.tensor([model.encode(prompt, bos=True)])
    with torch.inference_mode():
        scores = peer(ids).logits[:, -1]
    for warper in ("Temperature", "MinP", "Typical"):
        amount = asked[{"Temperature": "temperature", "MinP": "min_p", "Typical": "typical_p"}[warper]]
        scores = getattr(theirs, f"{warper}LogitsWarper")(amount)(ids, scores)
    p = torch.softmax(scores.double(), -1)[0].numpy()
    drawn = [one.tokens[0] for one in model.generate(prompt, bos=True, n=300, max_tokens=1, seed=1, **asked)]
    counts = np.bincount(drawn, minlength=len(p))
    assert counts[p == 0].sum() == 0
    common = 300 * p > 5
    chi_square = ((counts - 300 * p)[common] ** 2 / (300 * p)[common]).sum()
    assert chi_square < common.sum() + 4 * np.sqrt(2 * common.sum())
