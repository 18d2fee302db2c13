"""Metadata that no later call stumbles on: either the file is refused when it is loaded, or every method works."""

import json

import pytest
from folders import write_random_model

import nbgpt
from nbgpt.cli.main import main
from nbgpt.formats import FormatError
from nbgpt.formats.safetensors import read_header
from nbgpt.weights import load


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("models") / "random.safetensors", n_labels=3)


def with_metadata(path, target, change):
    """A copy of a native file with other metadata, whose tensors lie where they did."""
    data = path.read_bytes()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    header["__metadata__"] = {**header["__metadata__"], **change}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    target.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + n :])
    return target


def config_with(path, **change):
    return json.dumps({**json.loads(read_header(path)[1]["config"]), **change})


CONFIGS = [
    {"n_labels": 2.0},
    {"n_labels": 3.0},
    {"n_labels": -1},
    {"n_labels": True},
    {"n_labels": "3"},
    {"n_labels": None},
    {"n_labels": 1 << 40},
    {"n_layer": True},
    {"n_inner": [1]},
    {"multi_label": "no"},
    {"multi_label": 1},
    {"tied_embeddings": None},
    {"scale_attn_weights": 0.5},
    {"scale_attn_by_inverse_layer_idx": []},
    {"activation": ["gelu"]},
    {"layer_norm_epsilon": float("nan")},
    {"layer_norm_epsilon": 1},
    {"unknown": 1},
]
OTHERS = [
    {"labels": "7"},
    {"labels": "{"},
    {"labels": '["a", "b"]'},
    {"labels": '["a", "b", "b"]'},
    {"labels": '["a", "b", 3]'},
    {"labels": '{"a": 1, "b": 2, "c": 3}'},
    {"labels": '"abc"'},
    {"labels": "null"},
    {"labels": "[" * 100_000},
    {"generation": "[]"},
    {"generation": "no"},
    {"generation": '{"a": ' * 5000},
    {"bos": "True"},
    {"calibrated": "perhaps"},
    {"dtype": "x" * 10_000},
    {"config": "[]"},
    {"config": "[" * 100_000},
]


@pytest.mark.parametrize("change", CONFIGS, ids=str)
def test_config(path, tmp_path, change):
    broken = with_metadata(path, tmp_path / "a.safetensors", {"config": config_with(path, **change)})
    with pytest.raises(FormatError, match=r"a.safetensors: .*convert it again$") as raised:
        load(broken)
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize("change", OTHERS, ids=lambda change: str(change)[:40])
def test_other_metadata(path, tmp_path, change):
    broken = with_metadata(path, tmp_path / "a.safetensors", change)
    with pytest.raises(FormatError, match=r"a.safetensors: .*convert it again$") as raised:
        load(broken)
    assert len(str(raised.value)) < 600


ENDS = ["{}", '{"1": 2}', "null", '"1"', "[null]", "[1.0]", "[true]", "[99999]", "[[1]]", "7"]


@pytest.mark.parametrize("ends", ENDS)
def test_ends(path, tmp_path, ends):
    broken = with_metadata(path, tmp_path / "a.safetensors", {"eos_ids": ends, "bos_id": "1"})
    with pytest.raises(FormatError, match="no ids of its tokens"):
        nbgpt.load(broken)


GOOD = [
    {"name": "\x1b[2J\n" * 9},
    {"notes": "é" * 1000},
    {"vocabulary": ""},
    {"labels": "[]"},
    {"labels": '["a", "", "\\ud800"]'},
    {"generation": '{"a": [[[{}]]], "\\u001b": "\\ud800"}'},
    {"source": "\n", "source_sha256": "\x00"},
    {"eos_ids": "[]", "bos_id": "null"},
    {"other": "1"},
]


@pytest.mark.parametrize("change", GOOD, ids=lambda change: str(change)[:40])
def test_every_call_works_with_what_is_taken(path, tmp_path, change, capsys):
    file = with_metadata(path, tmp_path / "a.safetensors", change)
    with nbgpt.load(file, threads=1) as model:
        assert len(model.classify(["Once"])[0].probabilities) == 3
        assert model.generate("Once", max_tokens=2).tokens
        repr(model)
    assert main(["info", str(file)]) == 0
    assert "\x1b" not in capsys.readouterr().out
