"""A small model that reads text, and a trace of it."""

import pytest
from folders import RECITED, text_config, write_text_model
from models import random_params

import nbgpt


@pytest.fixture(scope="session")
def explained_model(tmp_path_factory, home):
    config = text_config(n_ctx=400)
    path = write_text_model(tmp_path_factory.mktemp("explained") / "random.safetensors", config, random_params(config))
    return nbgpt.load(path, threads=1)


@pytest.fixture(scope="session")
def explained(explained_model):
    return explained_model.trace(RECITED)
