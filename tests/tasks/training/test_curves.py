"""The order in which training texts are added, beside counting."""

import numpy as np

from nbgpt.tasks.training.curves import nested
from nbgpt.tasks.training.data import Examples


def test_every_beginning_has_the_shares_of_labels():
    targets = np.repeat([0, 1, 2], [100, 50, 10])
    order = nested(Examples([""] * 160, targets), seed=0)
    assert sorted(order) == list(range(160))
    for n in (16, 32, 80, 160):
        assert np.abs(np.bincount(targets[order[:n]], minlength=3) - n * np.array([100, 50, 10]) / 160).max() <= 1
    other = nested(Examples([""] * 160, targets), seed=1)
    assert (order != other).any()


def test_independent_labels_are_shuffled():
    targets = np.eye(30, 3, dtype=bool)
    assert sorted(nested(Examples([""] * 30, targets), 0)) == list(range(30))
