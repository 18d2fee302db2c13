"""Every kind of checkpoint that zoo.py makes is read as the program that wrote it reads it."""

import pytest
from test_transformers import TOLERANCE

from nbgpt.formats import FormatError

gguf = pytest.importorskip("gguf", reason="the zoo has GGUF files: pip install nbgpt[gguf]")
peft = pytest.importorskip("peft", reason="the zoo has LoRA adapters: pip install nbgpt[parity]")
import zoo  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),  # of fan_in_fan_out, which it corrects
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
]


def skip_unless_it_can_be_made(form):
    if not zoo.can_be_made(form):
        pytest.skip("NBGPT_TRANSFORMERS_4 names no folder with transformers 4, see zoo.py")


@pytest.mark.parametrize("kind", zoo.WEIGHTS, ids=", ".join)
def test_weights(tmp_path, kind):
    skip_unless_it_can_be_made(kind[1])
    assert zoo.difference(zoo.WEIGHTS[kind](tmp_path), tmp_path / "ours.safetensors") < TOLERANCE


@pytest.mark.parametrize("form", zoo.FORMS)
@pytest.mark.parametrize("kind", zoo.VOCABULARIES)
def test_vocabularies(tmp_path, kind, form):
    skip_unless_it_can_be_made(form)
    if cure := zoo.REFUSED.get((kind, form)):
        with pytest.raises(FormatError, match=cure) as caught:
            zoo.with_vocabulary(kind, form, tmp_path)
        assert "\n" not in str(caught.value)
    else:
        off, are_equal = zoo.with_vocabulary(kind, form, tmp_path)
        assert off < TOLERANCE
        assert are_equal
