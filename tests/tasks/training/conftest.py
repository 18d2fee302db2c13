"""A small model, labelled texts, and what was trained on them."""

import numpy as np
import pytest
from folders import write_random_model

import nbgpt
from nbgpt.tasks.training.train import train_classifier

WORDS = {
    "calm": ["sea", "sand", "sleep", "soft", "slow", "dawn", "lake", "rest", "shade", "warm"],
    "grim": ["storm", "night", "wreck", "ghost", "cold", "grave", "thunder", "wolf", "blood", "dark"],
    "merry": ["joy", "dance", "song", "laugh", "feast", "play", "jest", "cheer", "wine", "kiss"],
}


def sentences(label, n, seed):
    """Texts of a label's words, all of them different."""
    random = np.random.default_rng([seed, len(label)])
    return [" ".join([str(i), *random.choice(WORDS[label], 3 + i % 5)]) for i in range(n)]


@pytest.fixture(scope="session")
def labelled():
    """(texts, labels): 40 of each of three."""
    rows = [(text, label) for label in WORDS for text in sentences(label, 40, 0)]
    return [text for text, _ in rows], [label for _, label in rows]


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The file of a model."""
    return write_random_model(tmp_path_factory.mktemp("base") / "small.safetensors", n_layer=3)


@pytest.fixture(scope="session")
def model(base):
    return nbgpt.load(base, threads=2)


@pytest.fixture(scope="session")
def classifier(model, labelled):
    """Of three labels."""
    return train_classifier(model, *labelled, pooling="both")


@pytest.fixture(scope="session")
def binary(model, labelled):
    """Of two labels, on the last token's final state."""
    texts, labels = labelled
    return train_classifier(model, texts[:80], labels[:80], pooling="last", layer=-1)


@pytest.fixture(scope="session")
def tags(labelled):
    """Lists of labels for the same texts: what they are about, and whether they are long."""
    return [
        [label, *(["long"] if len(text.split()) > 5 else [])] if label != "calm" else []
        for text, label in zip(*labelled, strict=True)
    ]


@pytest.fixture(scope="session")
def tagger(model, labelled, tags):
    """Of labels that are independent of each other."""
    return train_classifier(model, labelled[0], tags, pooling="last", layer=-1)
