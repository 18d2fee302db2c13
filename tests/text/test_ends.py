"""Ends of text as a model's files have them: several, or none."""

import json

import numpy as np
import pytest
from folders import TOKENIZER, reciter, write_folder
from models import config_of, random_params

import nbgpt
from nbgpt.analysis.trace import trace
from nbgpt.cli.writer.display import Display
from nbgpt.cli.writer.repl import Repl
from nbgpt.cli.writer.settings import Settings
from nbgpt.cli.writer.workspace import Workspace

TEXT = "it was a dark and stormy night, and the captain looked at the sea"
IDS = TOKENIZER.encode(TEXT)
ENDS = [IDS[9], IDS[5]]  # the first one to come is not the first one in the list
ALPHABET = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A reciter that two of its tokens end."""
    folder = write_folder(tmp_path_factory.mktemp("models") / "two-ends", *reciter(TEXT))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ENDS}))
    with nbgpt.load(folder, dtype="float32") as model:
        yield model


def test_any_of_several_ends_it(model):
    assert model.tokenizer.eos_ids == {*ENDS}
    assert len({*IDS[:10]}) == 10
    found = model.generate([1], greedy=True)
    assert (found.tokens, found.finish_reason) == (IDS[:5], "stop")
    with model.session() as session:
        assert session.generate([1], greedy=True).tokens == IDS[:5]
    beams = model.beam_search([1], 3, max_tokens=20, early_stopping=True, length_penalty=0)
    assert (beams[0].tokens, beams[0].finish_reason) == (IDS[:5], "stop")
    searched = model.contrastive_search([1], alpha=0, max_tokens=20)
    assert (searched.tokens, searched.finish_reason) == (IDS[:5], "stop")


@pytest.mark.parametrize("more", [{}, {"logprobs": 1}, {"prompt_lookup": True}])
def test_min_tokens_hold_all_of_them_back(model, more):
    found = model.generate([1], greedy=True, min_tokens=7, **more)
    assert len(found.tokens) == 9
    assert not {*found.tokens} & {*ENDS}
    assert found.tokens[:5] + found.tokens[6:] == IDS[:5] + IDS[6:9]


def test_ignored_ends_are_written(model):
    found = model.generate([1], greedy=True, ignore_eos=True, max_tokens=len(IDS))
    assert found.tokens == IDS
    assert found.text == TOKENIZER.decode(IDS)


# No end at all


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    with nbgpt.load(write_bytes_model(tmp_path_factory.mktemp("models") / "endless"), dtype="float32") as model:
        yield model


def write_bytes_model(folder):
    """A model of 256 bytes, without an end or a beginning."""
    config = config_of(n_vocab=256, n_ctx=60)
    write_folder(folder, config, random_params(config))
    letters = [*map(chr, ALPHABET), *map(chr, range(256, 256 + 256 - len(ALPHABET)))]
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


@pytest.mark.parametrize("options", [{}, {"ignore_eos": True}, {"min_tokens": 9}, {"logprobs": 1, "echo": True}])
def test_a_text_without_an_end_has_all_its_tokens(endless, options):
    assert (endless.tokenizer.eos_id, endless.tokenizer.bos_id) == (None, None)
    found = endless.generate("abc", greedy=True, max_tokens=20, **options)
    expected = [64, 65, 66]
    while len(expected) < 23:
        expected.append(int(endless.logits(expected)[-1].argmax()))
    assert found.tokens[-20:] == expected[3:]
    assert found.finish_reason == "length"
    with endless.session() as session:
        assert session.generate("abc", greedy=True, max_tokens=20).tokens == expected[3:]
    assert endless.beam_search("abc", 1, max_tokens=20)[0].tokens == expected[3:]
    assert endless.contrastive_search("abc", alpha=0, max_tokens=20).tokens == expected[3:]


def test_what_needs_no_end(endless):
    assert len(endless.score("abc").logprobs) == 3
    assert {choice for choice, _ in endless.rank("abc", ["d", "e"])} == {"d", "e"}
    assert np.isfinite(endless.embed(["abc", [1, 2]])).all()
    assert endless.hidden_states("abc").shape == (3, 48)
    assert trace(endless.engine, endless.tokenizer, [64, 65, 66])


def test_what_needs_one_says_so(endless):
    for ask in (endless.generate, endless.score, endless.beam_search, endless.contrastive_search):
        with pytest.raises(ValueError, match="the prompt is empty, and this model has no token that begins texts"):
            ask("")
        with pytest.raises(ValueError, match="bos is True, and this model has no token that begins texts"):
            ask("abc", bos=True)


def test_a_form_needs_an_end(endless):
    pytest.importorskip("llguidance", reason="an extra: pip install nbgpt[constrain]")
    with pytest.raises(ValueError, match=r"no token that ends a text.* name one as eos_token_id in"):
        endless.generate("abc", choice=["a"])


def test_an_end_can_be_named(tmp_path):
    pytest.importorskip("llguidance", reason="an extra: pip install nbgpt[constrain]")
    folder = write_bytes_model(tmp_path / "ended")
    (folder / "generation_config.json").write_text('{"eos_token_id": 5}')
    with nbgpt.load(folder, dtype="float32") as model:
        found = model.generate("abc", choice=["a"])
        assert (found.text, found.finish_reason) == ("a", "stop")


def test_a_conversation_without_a_beginning(endless, capsys):
    settings = Settings({"max_tokens": 8, "greedy": True})
    repl = Repl(Workspace(endless, settings, Display(is_terminal=False)), is_interactive=True)
    repl.run(iter(["", "/set top_k 3", "abc", "/new"]))
    assert endless.generate("abc", greedy=True, max_tokens=8).text in capsys.readouterr().out


def test_a_draft_of_another_vocabulary(endless, model):
    with pytest.raises(ValueError, match=r"the draft's vocabulary has .* both must have the same"):
        endless.generate("abc", draft_model=model)


def test_the_last_position_of_the_context(endless):
    prompt = [int(i) for i in np.random.default_rng(0).integers(0, 256, 60)]
    last = [int(endless.logits(prompt)[-1].argmax())]
    for more in ({}, {"max_tokens": 1}, {"logprobs": 1}, {"prompt_lookup": True}):
        found = endless.generate(prompt, greedy=True, **more)
        assert (found.tokens, found.finish_reason) == (last, "length")
    with endless.session() as session:
        assert session.generate(prompt[:50], greedy=True, max_tokens=11).tokens[:1]
        assert len(session) == 60
        assert session.generate(prompt, greedy=True, max_tokens=1).tokens == last
    assert endless.beam_search(prompt, 3, max_tokens=1)[0].tokens == last
    assert (
        endless.generate(prompt[:50], max_tokens=11, draft_model=endless, ignore_eos=True).usage.completion_tokens == 11
    )
    with pytest.raises(ValueError, match="prompt of 60 tokens and 2 new ones need 61 positions"):
        endless.generate(prompt, max_tokens=2)
    with pytest.raises(ValueError, match="prompt of 60 tokens and 1 new ones need 61 positions"):
        endless.contrastive_search(prompt, max_tokens=1)
