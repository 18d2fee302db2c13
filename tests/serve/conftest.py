"""Models and servers that the tests of this group share: a server is started once where nothing is done to it."""

import pytest
from folders import text_config, write_text_model
from models import random_params
from servers import STORY, serving

import nbgpt


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Small random models, by name: int8 as the embedded one, so that its kernels do."""
    folder, made = tmp_path_factory.mktemp("served"), {}
    for name, changes in {"tiny": {}, "labels": {"n_labels": 3}}.items():
        config = text_config(**changes)
        made[name] = write_text_model(folder / f"{name}.safetensors", config, random_params(config), "int8")
    return made


@pytest.fixture(scope="session")
def models(files):
    """The models of `server`, in this process."""
    return {STORY: nbgpt.load(), **{name: nbgpt.load(path) for name, path in files.items()}}


@pytest.fixture(scope="session")
def story(models):
    return models[STORY]


@pytest.fixture(scope="session")
def server(files, models):
    """Three models, and a chat template."""
    named = [f"{name}={path}" for name, path in files.items()]
    with serving("--model", STORY, "--model", named[0], "--model", named[1], "--chat-template", "plain") as server:
        yield server


@pytest.fixture(scope="session")
def client(server):
    return server.client()
