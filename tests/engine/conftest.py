"""The model of the tests of the scheduler."""

import pytest
from models import open_model, random_params, write_native
from workload import CONFIG


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_native(tmp_path_factory.mktemp("models") / "m.safetensors", random_params(CONFIG), CONFIG, "float32")


@pytest.fixture(scope="module")
def alone(file):
    return open_model(file, 2)
