"""Every kind of checkpoint that zoo.py makes is read as the program that wrote it reads it."""

import pytest
from test_transformers import TOLERANCE

gguf = pytest.importorskip("gguf", reason="the zoo has GGUF files: pip install nbgpt[gguf]")
peft = pytest.importorskip("peft", reason="the zoo has LoRA adapters: pip install nbgpt[parity]")
import zoo  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),  # of fan_in_fan_out, which it corrects
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
]


@pytest.mark.parametrize("kind", zoo.WEIGHTS, ids=", ".join)
def test_weights(tmp_path, kind):
    assert zoo.difference(zoo.WEIGHTS[kind](tmp_path), tmp_path / "ours.safetensors") < TOLERANCE


@pytest.mark.parametrize("form", zoo.FORMS)
@pytest.mark.parametrize("kind", zoo.KINDS)
def test_vocabularies(tmp_path, kind, form):
    off, are_equal = zoo.with_vocabulary(kind, form, tmp_path)
    assert off < TOLERANCE
    assert are_equal


@pytest.mark.skipif(
    not zoo.TRANSFORMERS_4, reason="NBGPT_TRANSFORMERS_4 names no folder with transformers 4, see zoo.py"
)
@pytest.mark.parametrize("kind", zoo.IN_TRANSFORMERS_4, ids=", ".join)
def test_weights_of_transformers_4(tmp_path, kind):
    assert zoo.difference(zoo.IN_TRANSFORMERS_4[kind](tmp_path), tmp_path / "ours.safetensors") < TOLERANCE
