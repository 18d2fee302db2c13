"""Models and servers that the tests of this group share: a server is started once where nothing is done to it."""

import pytest
from browser import browser
from folders import reciter, write_random_model, write_text_model
from servers import STORY, serving

import nbgpt


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Small random models, by name: int8 as the embedded one, so that its kernels do."""
    folder, made = tmp_path_factory.mktemp("served"), {}
    for name, changes in {"tiny": {}, "labels": {"n_labels": 3}}.items():
        made[name] = write_random_model(folder / f"{name}.safetensors", "int8", **changes)
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


@pytest.fixture(scope="session")
def reciting(tmp_path_factory):
    """A small model that ends its text, in which characters are spread over tokens."""
    return write_text_model(tmp_path_factory.mktemp("model") / "reciter.safetensors", *reciter(), "int8")


@pytest.fixture(scope="session")
def url(reciting):
    """The address of the playground of a server with two models."""
    with serving("--model", STORY, "--model", f"reciter={reciting}") as server:
        yield server.url


@pytest.fixture(scope="session")
def window(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.fixture(scope="session")
def other_window(tmp_path_factory):
    """A window of another browser, which knows nothing of the first one's."""
    with browser(tmp_path_factory.mktemp("other profile")) as window:
        yield window
