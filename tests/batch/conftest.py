"""A small model, and files of rows."""

import json

import pytest
from folders import write_random_model

import nbgpt


@pytest.fixture(scope="session")
def model_file(tmp_path_factory, home):
    """Int8, as the embedded model, so that its kernels do."""
    return write_random_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", "int8")


@pytest.fixture(scope="session")
def model(model_file):
    with nbgpt.load(model_file) as model:
        yield model


@pytest.fixture
def write(tmp_path):
    """Writes objects as JSON lines; a text stands as it is."""

    def write(rows, name="rows.jsonl"):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path = tmp_path / name
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return write
