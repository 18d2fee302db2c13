"""The plugin, in the real `llm` command."""

import asyncio
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import nbgpt

llm = pytest.importorskip("llm", reason="the llm command is not installed: pip install nbgpt[llm]")

PROMPT = "It was a dark and stormy night"


@pytest.fixture(scope="module")
def model():
    return nbgpt.load()


@pytest.fixture
def run(tmp_path):
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path)}

    def run(*arguments, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    return run


def test_it_lists_the_models_of_this_machine(run):
    listed = [line for line in run("models").splitlines() if "nbgpt/" in line]
    assert any(line.endswith("nbgpt/story-34m") for line in listed)


def test_a_prompt_is_continued_and_then_the_conversation(run, model):
    options = {"max_tokens": 20, "temperature": 0.7, "top_k": 30, "repetition_penalty": 1.1, "seed": 3}
    arguments = [argument for name, value in options.items() for argument in ("-o", name, str(value))]
    expected = model.generate(PROMPT, **options).text
    assert run("-m", "nbgpt/story-34m", PROMPT, *arguments) == expected + "\n"
    longer = model.generate(f"{PROMPT}{expected} And then", **options).text
    assert run("-c", " And then", *arguments) == longer + "\n"
    assert run("--no-stream", "-m", "nbgpt/story-34m", PROMPT, *arguments) == expected + "\n"


def test_a_system_prompt_is_a_paragraph_before(run, model):
    arguments = ("-m", "nbgpt/story-34m", "-s", "A tale of the sea.", "-o", "temperature", "0", "-o", "max_tokens", "9")
    expected = model.generate(f"A tale of the sea.\n\n{PROMPT}", greedy=True, max_tokens=9).text
    assert run(*arguments, PROMPT) == expected + "\n"
    longer = model.generate(f"A tale of the sea.\n\n{PROMPT}{expected} And", greedy=True, max_tokens=9).text
    assert run("-c", " And", *arguments[4:]) == longer + "\n"


def test_stop_is_not_written(run, model):
    arguments = ("-o", "temperature", "0", "-o", "stop", "stars")
    expected = model.generate(PROMPT, greedy=True, stop="stars").text
    assert expected
    assert run("-m", "nbgpt/story-34m", PROMPT, *arguments) == expected + "\n"


def test_a_bad_value_is_one_line(run):
    assert run("-m", "nbgpt/story-34m", PROMPT, "-o", "top_p", "3", code=1) == (
        "Error: top_p is 3.0; it must be above 0 and at most 1 (off)\n"
    )


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"enum": [7, 8]}},
    "required": ["name", "age"],
}


def test_a_schema_gives_json_that_fits_it(model):
    pytest.importorskip("llguidance", reason="structured output needs pip install nbgpt[constrain]")
    written = llm.get_model("nbgpt/story-34m").prompt("The boy:", schema=SCHEMA, seed=5).text()
    closed = {**SCHEMA, "additionalProperties": False}  # llm's own short form of a schema does not say so
    assert written == model.generate("The boy:", json_schema=closed, seed=5).text
    found = json.loads(written)
    assert {*found} == {"name", "age"}
    assert found["age"] in (7, 8)
    assert len(found["name"]) <= 8


def test_log_probabilities_are_in_the_json_of_the_response(model):
    answer = llm.get_model("nbgpt/story-34m").prompt(PROMPT, max_tokens=3, seed=4, logprobs=2)
    response = answer.json()
    expected = model.generate(PROMPT, max_tokens=3, seed=4, logprobs=2)
    assert (answer.input_tokens, answer.output_tokens) == (expected.usage.prompt_tokens, 3)
    assert (response["finish_reason"], response["seed"]) == ("length", 4)
    for one, wanted in zip(response["logprobs"], expected.logprobs, strict=True):
        assert (one["id"], one["text"], one["logprob"]) == (wanted.token, wanted.text, wanted.logprob)
        assert [(top["id"], top["logprob"]) for top in one["top"]] == list(wanted.top.items())
        assert [top["text"] for top in one["top"]] == [model.decode([i]) for i in wanted.top]


def test_asyncio(model):
    async def answers():
        one = llm.get_async_model("nbgpt/story-34m")
        responses = [one.prompt(PROMPT, seed=seed, max_tokens=12, logprobs=0) for seed in (1, 2)]
        texts = await asyncio.gather(*(response.text() for response in responses))
        return texts, await responses[0].json()

    texts, response = asyncio.run(answers())
    assert texts == [model.generate(PROMPT, seed=seed, max_tokens=12).text for seed in (1, 2)]
    assert len(response["logprobs"]) == 12
    assert response["seed"] == 1


def test_asyncio_raises_the_error_of_llm():
    async def answer():
        return await llm.get_async_model("nbgpt/story-34m").prompt(PROMPT, top_p=3.0).text()

    with pytest.raises(llm.ModelError, match="top_p is 3"):
        asyncio.run(answer())


def test_vectors(model):
    embedder, texts = llm.get_embedding_model("nbgpt/story-34m"), ["The sea was calm", "A dark night"]
    assert np.array_equal(np.float32(list(embedder.embed_multi(texts))), model.embed(texts))
    assert np.array_equal(np.float32(embedder.embed(texts[1])), model.embed(texts[1]))
    with pytest.raises(llm.ModelError, match="1024"):
        embedder.embed("word " * 2000)
