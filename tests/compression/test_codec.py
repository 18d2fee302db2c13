"""Compression end to end: what goes in comes out, and nothing else does."""

import pytest
from folders import text_config, write_text_model
from models import random_params

import nbgpt


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = text_config(n_ctx=24)
    return nbgpt.load(write_text_model(tmp_path_factory.mktemp("models") / "random", config, random_params(config)))


@pytest.mark.parametrize("data", [b"", b"a", b"\xff", "Naïve café 😀 日本語".encode(), b"ab\x80\xf0\x9f cd" * 30])
def test_round_trip(model, data):
    assert model.decompress(model.compress(data)) == data
