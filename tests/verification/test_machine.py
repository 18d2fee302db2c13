"""`verify` finds what differs: a file, a kernel's bits, a text; and a model's digest is its own."""

import shutil

import numpy as np
import pytest
from models import config_of, open_model, random_params, write_native

from nbgpt.paths import shipped
from nbgpt.verification import digests
from nbgpt.verification import machine as module
from nbgpt.verification.digests import VerificationError, logits_digests
from nbgpt.verification.machine import Check, checks, expected, file_digest, model_digest


@pytest.fixture
def brief(monkeypatch):
    """A verification of one type of weights and one text."""
    monkeypatch.setattr(module, "DTYPES", ("float32",))
    monkeypatch.setattr(module, "KV_DTYPES", ("float32",))
    monkeypatch.setattr(module, "TEXTS", {"min_p": module.TEXTS["min_p"]})


def test_this_machine(home, brief):
    assert list(checks()) == [Check("files", 3, ()), Check("logits", 1, ()), Check("texts", 1, ())]


def test_other_digests(home, brief, monkeypatch):
    wanted = expected()
    wanted["files"]["vocab.bpe"] = "0" * 64
    wanted["fma"]["logits"]["float32, cache float32"][1] = "0" * 16
    wanted["fma"]["texts"]["min_p"] = "0" * 16
    monkeypatch.setattr(module, "expected", lambda: wanted)
    assert [check.different for check in checks()] == [("vocab.bpe",), ("float32, cache float32",), ("min_p",)]


def test_all_that_verify_compares_is_committed():
    wanted = expected()
    assert {f"{dtype}, cache {kv}" for dtype in module.DTYPES for kv in module.KV_DTYPES} <= {*wanted["fma"]["logits"]}
    assert {*module.TEXTS} <= {*wanted["fma"]["texts"]}
    assert len(module.TEXTS) >= 20
    assert {*wanted["files"]} == {path.name for path in shipped("vocab.bpe").parent.iterdir()} - {"README.md"}


def test_a_damaged_file(tmp_path):
    copy = shutil.copy(shipped("vocab.bpe"), tmp_path / "vocab.bpe")
    assert file_digest(copy) == expected()["files"]["vocab.bpe"]
    with copy.open("r+b") as file:
        file.seek(1000)
        file.write(b"!")
    assert file_digest(copy) != expected()["files"]["vocab.bpe"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = config_of(n_ctx=100)  # shorter than the longest text
    path = tmp_path_factory.mktemp("models") / "random.safetensors"
    return open_model(write_native(path, random_params(config), config, "float32"), 2)


def test_a_model_of_ones_own(home, model, tmp_path):
    config = config_of(n_ctx=100)
    own = model_digest(model.weights, threads=1)
    assert own == model_digest(model.weights, threads=3)
    params = random_params(config)
    params["h.0.attn.c_attn.weight"][0, 0] *= np.float32(1 + 2**-20)
    other = open_model(write_native(tmp_path / "other.safetensors", params, config, "float32"))
    assert own != model_digest(other.weights)


def test_logits_that_depend_on_the_batch(home, model, monkeypatch):
    read = digests._read_together
    monkeypatch.setattr(digests, "_read_together", lambda *about: [np.nextafter(one, 9) for one in read(*about)])
    with pytest.raises(VerificationError, match="float32: logits depend on what else is in the batch"):
        logits_digests(model)
