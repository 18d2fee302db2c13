"""What the page says about predictions."""

import numpy as np
from packing import unpacked

from nbgpt.analysis.explain import predictions
from nbgpt.analysis.explain.predictions import attribution_data, candidates, predictions_data


def test_surprise_and_lens(explained):
    data = predictions_data(explained)
    np.testing.assert_allclose(unpacked(data["bits"])[1:], explained.surprisal[1:], rtol=2.5e-4)
    assert unpacked(data["bits"])[0] == 0
    np.testing.assert_array_equal(unpacked(data["ranks"]), explained.ranks)
    np.testing.assert_array_equal(unpacked(data["lens_ids"]), explained.lens_ids[..., :5])


def test_the_text_s_own_token_is_the_first_candidate(explained, explained_model):
    n = len(explained.ids)
    ids, logits = candidates(explained, np.arange(n), 4)
    assert ids[:-1, 0].tolist() == explained.ids[1:].tolist()
    assert ids[-1].tolist() == explained.lens_ids[-1, -1, :4].tolist()
    assert all(len(set(row)) == 4 for row in ids.tolist())
    expected = np.take_along_axis(explained_model.logits(explained.ids.tolist()), ids.astype(np.int64), axis=1)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_shares_add_up(explained, explained_model):
    data = attribution_data(explained)
    shares, logits = unpacked(data["shares"]), unpacked(data["logits"])
    np.testing.assert_allclose(shares[:, :-1].sum(axis=-1), logits, atol=0.02)  # as they are rounded
    mean = explained_model.logits(explained.ids.tolist()).mean(axis=1)
    np.testing.assert_allclose(shares[:, -1].sum(axis=-1), mean, atol=0.02)


def test_a_long_text_has_shares_of_its_last_tokens(explained, monkeypatch):
    n, n_parts = len(explained.ids), 2 * (3 + 1) + 3
    monkeypatch.setattr(predictions, "_SHARES", 3 * 10 * n_parts)
    data = attribution_data(explained)
    assert data["first"] == n - 10
    assert data["shares"]["shape"] == [10, 3, n_parts]
