"""Features that are kept: found for the same texts and model, and for no others."""

import numpy as np
import pytest

from nbgpt.tasks.training import feature_cache
from nbgpt.tasks.training.feature_cache import cached

BATCH, LAYERS = [[1, 2, 3], [4], [5, 6]], [0, 2]
FEATURES = np.arange(2 * 3 * 48, dtype=np.float32).reshape(2, 3, 48)


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path))


@pytest.fixture
def look(model):
    """Asks for features -> whether they had to be computed."""

    def look(batch=BATCH, layers=LAYERS, pooling="last", features=FEATURES):
        asked = []
        found = cached(model.engine, batch, layers, pooling, lambda: asked.append(1) or features)
        np.testing.assert_array_equal(found, features)
        return bool(asked)

    return look


def test_the_same_is_computed_once(look, tmp_path):
    assert look()
    assert not look()
    assert len([*(tmp_path / "features").iterdir()]) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"batch": [[1, 2], [3, 4], [5, 6]]},  # the same ids, cut elsewhere
        {"batch": BATCH[::-1]},
        {"layers": [0, 1]},
        {"pooling": "mean"},
        {"pooling": "both", "features": np.zeros((2, 3, 96), np.float32)},
    ],
    ids=str,
)
def test_anything_else_is_something_else(look, other):
    look()
    assert look(**other)
    assert not look()


def test_another_model(look, model, monkeypatch):
    look()
    monkeypatch.setattr(feature_cache, "fingerprint", lambda weights: "another")
    assert look()


@pytest.mark.parametrize("change", [lambda data: b"", lambda data: data[:-4], lambda data: data + b"1234"])
def test_a_damaged_file_is_computed_again(look, tmp_path, change):
    look()
    [file] = (tmp_path / "features").iterdir()
    file.write_bytes(change(file.read_bytes()))
    assert look()
    assert not look()


def test_a_folder_that_cannot_be_written(look, tmp_path):
    (tmp_path / "features").write_text("a file")
    assert look()
    assert look()


def test_the_least_recently_used_go(look, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "LIMIT", 3 * 1300)
    batches = [[[n], [4], [5, 6]] for n in range(3)]
    for batch in batches:
        assert look(batch=batch)
    assert not look(batch=batches[0])
    assert look(batch=[[9], [4], [5, 6]])
    assert not look(batch=batches[0])
    assert look(batch=batches[1])
