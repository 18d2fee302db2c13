"""Penalties, bans and truncations against transformers' LogitsProcessor classes, on the same ids and logits."""

import numpy as np
import pytest

from nbgpt import processors as do

torch = pytest.importorskip("torch", reason="the parity group needs torch and transformers: pip install nbgpt[parity]")
theirs = pytest.importorskip("transformers", reason="the parity group needs it: pip install nbgpt[parity]")

N_VOCAB = 200
IDS = [5, 6, 7, 5, 6, 8, 5, 6]
WORDS = [[3], [5, 6, 9], [6, 10], [7, 11], [1, 5, 6, 12], [8, 5, 6, 13]]
IN_PLACE = {
    "repetition 1.3": (lambda s, ids: do.penalize_repetition(s, ids, 1.3), "RepetitionPenaltyLogitsProcessor", [1.3]),
    "repetition 0.7": (lambda s, ids: do.penalize_repetition(s, ids, 0.7), "RepetitionPenaltyLogitsProcessor", [0.7]),
    **{
        f"{n}-gram": (lambda s, ids, n=n: do.ban_repeated_ngrams(s, ids, n), "NoRepeatNGramLogitsProcessor", [n])
        for n in range(1, 11)
    },
    "bad words": (do.BannedWords([tuple(word) for word in WORDS]), "NoBadWordsLogitsProcessor", [WORDS]),
    "bias": (
        lambda s, ids: do.add_bias(s, {3: 2.5, 9: -1.0}),
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
    process(scores, np.array(ids, np.int32))
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
