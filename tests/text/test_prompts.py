"""Prompts with options of their own, and what becomes of prompts and options."""

import pytest
from folders import write_random_model

import nbgpt
from nbgpt.text.prompts import Prompt, as_prompts

STORY = "It was a dark and stormy night; the rain fell in torrents"
OWN = [
    {"max_tokens": 5, "seed": 1},
    {"greedy": True, "max_tokens": 30, "logprobs": 2, "echo": True},
    {"temperature": 3.0, "top_k": 0, "seed": 9, "min_p": 0.01, "max_tokens": 25, "stop": ["e"]},
    {"seed": 3, "max_tokens": 150, "overflow": "truncate_left", "mirostat_tau": 3.0},
    {"seed": 4, "prefix": " was", "min_tokens": 4, "ignore_eos": True},
    {"seed": 5, "prompt_lookup": True},
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("models") / "random.safetensors", tied_embeddings=False)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_options_of_their_own_in_one_batch(path, batch_size):
    model, alone = nbgpt.load(path, threads=1), nbgpt.load(path, threads=1)
    prompts = [Prompt(STORY[: 20 + n], **options) for n, options in enumerate(OWN)]
    found = model.generate([*prompts, STORY], max_tokens=12, seed=8, batch_size=batch_size)
    expected = [alone.generate(one.text, **{"max_tokens": 12, "seed": 8, **one.options}) for one in prompts]
    expected.append(alone.generate(STORY, max_tokens=12, seed=8))
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.text, ours.tokens, ours.finish_reason) == (theirs.text, theirs.tokens, theirs.finish_reason)
        assert (ours.logprobs, ours.seed, ours.usage) == (theirs.logprobs, theirs.seed, theirs.usage)
    assert len({len(one.tokens) for one in found}) > 3
    assert model.engine.kv_bytes_in_use == 0


def test_several_samples_of_prompts_with_options(path):
    model = nbgpt.load(path, threads=1)
    found = model.generate([Prompt("Once", seed=1), Prompt("Once", seed=2)], n=2, max_tokens=8, temperature=3.0)
    alone = [
        model.generate("Once", seed=seed, sample=sample, max_tokens=8, temperature=3.0)
        for seed in (1, 2)
        for sample in (0, 1)
    ]
    assert [one.tokens for one in found] == [one.tokens for one in alone]
    assert len({tuple(one.tokens) for one in found}) == 4


def test_a_prompt_with_options_in_a_session_and_in_a_stream(path):
    model = nbgpt.load(path, threads=1)
    expected = model.generate("Once", seed=1, max_tokens=8).text
    prompt = Prompt("Once", seed=1)
    assert model.session().generate(prompt, max_tokens=8).text == expected
    assert "".join(model.stream(prompt, max_tokens=8)) == expected


def test_bad_options_of_one_prompt_begin_nothing(path):
    model = nbgpt.load(path, threads=1)
    with pytest.raises(ValueError, match=r"top_p is 1\.5"):
        model.generate(["Once", Prompt("It", top_p=1.5)])
    with pytest.raises(TypeError, match="no option is called 'top_q'"):
        model.generate([Prompt("It", top_q=1)])
    with pytest.raises(TypeError, match="batch_size is given for one prompt; it belongs to the call"):
        Prompt("It", batch_size=3)
    assert model.engine.kv_bytes_in_use == 0


def test_prompts_of_every_form():
    prompt = Prompt("a", seed=1)
    assert [one.text for one in as_prompts("abc")] == ["abc"]
    assert as_prompts(prompt) == [prompt]
    assert [one.text for one in as_prompts(["a", "b"])] == ["a", "b"]
    assert as_prompts((prompt,)) == [prompt]
    assert as_prompts([]) == []
    assert repr(prompt) == "Prompt('a', seed=1)"
