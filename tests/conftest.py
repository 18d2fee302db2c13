"""What every test gets: a home of its own for kernels and models, so that nothing of the user's is read or changed."""

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    """The session's NBGPT_HOME: empty at first, so each type of weights is compiled once."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("NBGPT_HOME", str(folder))
        yield folder


@pytest.fixture
def rng():
    """Random numbers that are the same whichever tests run."""
    return np.random.default_rng(0)
