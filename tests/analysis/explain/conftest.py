"""A small model that reads text, and a trace of it."""

import pytest
from folders import RECITED, write_random_model

import nbgpt


@pytest.fixture(scope="session")
def explained_model(tmp_path_factory, home):
    path = write_random_model(tmp_path_factory.mktemp("explained") / "random.safetensors", n_ctx=400)
    return nbgpt.load(path, threads=1)


@pytest.fixture(scope="session")
def explained(explained_model):
    return explained_model.trace(RECITED)
