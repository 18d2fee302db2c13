"""The model whose scores `protocols.py` computes in float64."""

import protocols
import pytest
from folders import write_text_model

import nbgpt


@pytest.fixture(scope="session")
def protocol_model(tmp_path_factory, home):
    path = tmp_path_factory.mktemp("protocols") / "m.safetensors"
    return nbgpt.load(write_text_model(path, protocols.CONFIG, protocols.PARAMS), threads=2)
