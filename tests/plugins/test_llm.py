"""The plugin, in the real `llm` command."""

import os
import subprocess
import sys

import pytest

import nbgpt

pytest.importorskip("llm", reason="the llm command is not installed: pip install nbgpt[llm]")

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
