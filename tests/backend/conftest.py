"""A small model, and what its kernels compute."""

import pytest
from models import config_of, open_model, random_params, read, write_native

CONFIG = config_of()


@pytest.fixture(scope="session")
def path(tmp_path_factory, home):
    path = tmp_path_factory.mktemp("models") / "float32.safetensors"
    return write_native(path, random_params(CONFIG), CONFIG, "float32")


@pytest.fixture(scope="session")
def text():
    """Every id once."""
    return list(range(CONFIG.n_vocab))


@pytest.fixture(scope="session")
def expected(path, text):
    """Logits of one thread after each id of the text, float32 [n, n_vocab]."""
    return read(open_model(path, n_threads=1), text)
