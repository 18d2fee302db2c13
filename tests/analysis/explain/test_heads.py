"""What the page says about heads: habits, weights in blocks, queries and keys."""

import numpy as np
import pytest
from packing import unpacked

from nbgpt.analysis.explain import heads
from nbgpt.analysis.explain.heads import habits_of, heads_data, products


def test_habits():
    """Five tokens; a head that looks back by two, one that looks at the first, one at itself, one just before."""
    attention = np.zeros((4, 5, 5))
    for i in range(5):
        attention[0, i, max(0, i - 2)] = 1
        attention[1, i, 0] = 1
        attention[2, i, i] = 1
        attention[3, i, max(0, i - 1)] = 1
    own, before, first, others, sharp = habits_of(attention).T
    np.testing.assert_allclose(own, [0.2, 0.2, 1, 0.2])
    np.testing.assert_allclose(before, [0.2, 0.2, 0, 0.8])
    np.testing.assert_allclose(first, [0.2, 0.6, 0, 0])
    np.testing.assert_allclose(others, [0.4, 0, 0, 0])
    np.testing.assert_allclose(sharp, [1, 0, 0, 0])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_habits_of_a_short_text(n):
    attention = np.tri(n)[None] / np.arange(1, n + 1)[:, None]
    habits = habits_of(attention)
    np.testing.assert_allclose(habits[0, :4].sum(), 1)
    assert habits[0, 4] == 0


def test_the_sharpest_heads_come_first(explained):
    data = heads_data(explained)
    sharp = unpacked(data["habits"])[..., 4].ravel()
    assert data["best"] == np.argsort(-sharp)[:5].tolist()
    assert data["products"]["heads"][:5] == data["best"]


def test_weights_in_blocks(explained, monkeypatch):
    """When the page has no room for each weight, a number stands for the largest of a block."""
    monkeypatch.setattr(heads, "_MAX_CELLS", explained.attention.size // 4)
    monkeypatch.setattr(heads, "_ATTENTION_BYTES", 0)
    data = heads_data(explained)
    n_layer, n_head, n, _ = explained.attention.shape
    assert data["block"] == 2  # 64 blocks and fewer are not made coarser
    m = -(-n // 2)
    found = unpacked(data["attention"]).reshape(n_layer, n_head, -1)
    for i in range(m):
        for j in range(i + 1):
            block = explained.attention[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(2, 3))
            np.testing.assert_allclose(found[:, :, i * (i + 1) // 2 + j] / 255, block, atol=0.5 / 255 + 1e-6)


def test_weights_become_coarser_until_they_fit(explained_model, monkeypatch):
    monkeypatch.setattr(heads, "_ATTENTION_BYTES", 6000)
    data = heads_data(explained_model.trace([i % 500 for i in range(300)]))
    assert data["block"] > 1
    assert len(data["attention"]["data"]) <= 8000


def test_queries_and_keys(explained):
    data = products(explained, [4, 1])
    numbers = unpacked(data["numbers"])
    for slot, (layer, head) in enumerate([(1, 1), (0, 1)]):
        for which, array in enumerate((explained.q, explained.k)):
            found = numbers[slot, which] * data["units"][slot][which]
            expected = array[layer, head]
            np.testing.assert_allclose(found, expected, rtol=0, atol=np.abs(expected).max() / 60000)
