"""A workspace over the embedded model, whose output is no terminal."""

import pytest

import nbgpt
from nbgpt.cli.writer.display import Display
from nbgpt.cli.writer.settings import Settings
from nbgpt.cli.writer.workspace import Workspace


@pytest.fixture(scope="session")
def story():
    return nbgpt.load()


@pytest.fixture
def new_workspace(story):
    """Makes a workspace with settings; 8 tokens, seed 3, unless told otherwise."""

    def new_workspace(is_interactive=True, shows_typed=False, **values):
        settings = Settings({"max_tokens": 8, "seed": 3, **values})
        return Workspace(
            story, settings, Display(is_terminal=False), is_interactive=is_interactive, shows_typed=shows_typed
        )

    return new_workspace


@pytest.fixture
def workspace(new_workspace):
    return new_workspace()
