"""`summarize`, `translate`, `answer` and `rank`, against the methods they call."""

import json

import pytest

import nbgpt
from nbgpt.tasks import answer, summarize, translate

STORY = "Once upon a time there was a dog. It was sad. It ran away."


@pytest.fixture(scope="module")
def model():
    return nbgpt.load()


def test_summarize(run, model):
    expected = summarize(model, STORY, seed=5, max_tokens=30)
    assert run("summarize", STORY, "--seed", 5, "-n", 30)[:2] == (0, expected + "\n")
    _, out, _ = run("summarize", "--seed", 5, "-n", 30, "--json", stdin=STORY.encode())
    assert json.loads(out) == {"text": expected, "prompt": f"{STORY}\nTL;DR:", "seed": 5}


def test_translate(run, model, tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_text("a dog\tun chien\n\na cat\tun chat\r\n")
    pairs = [("a dog", "un chien"), ("a cat", "un chat"), ("a tree", "un arbre")]
    expected = translate(model, "a house", pairs, max_tokens=10)
    arguments = ("translate", "a house", "--pairs", file, "--pair", "a tree", "un arbre", "-n", 10)
    assert run(*arguments)[:2] == (0, expected + "\n")


def test_answer(run, model, tmp_path):
    (tmp_path / "story.txt").write_text(STORY)
    expected = answer(model, "Why?", [("Who?", "A dog.")], STORY, max_tokens=10)
    arguments = ("answer", "Why?", "--context", tmp_path / "story.txt", "--pair", "Who?", "A dog.", "-n", 10)
    assert run(*arguments)[:2] == (0, expected + "\n")


@pytest.mark.parametrize("flags", [(), ("--no-normalize",)])
def test_rank(run, model, tmp_path, flags):
    (tmp_path / "choices").write_text(" a dog\n\n a cat in a hat\n")
    expected = model.rank("Once upon a time there was", [" the", " a dog", " a cat in a hat"], normalize=not flags)
    arguments = ("rank", "Once upon a time there was", "--choice", " the", "--choices", tmp_path / "choices", *flags)
    assert run(*arguments)[1] == "".join(f"{logprob:.4f}\t{choice}\n" for choice, logprob in expected)
    lines = run(*arguments, "--json")[1].splitlines()
    assert [json.loads(line) for line in lines] == [{"choice": one, "logprob": value} for one, value in expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["summarize"], "there is no text"),
        (["summarize", " \n"], "there is no text"),
        (["summarize", "a", "--file", "b"], "choose one"),
        (["summarize", "word " * 3000], "this model's context is"),
        (["translate", "a house"], "no example is given"),
        (["answer", "Who?", "--context", "nowhere.txt"], "nowhere.txt: No such file"),
        (["answer", "Who?", "--max-tokens", "0"], "--max-tokens is 0"),
        (["rank", "a"], "no choice is given"),
        (["rank", "a", "--choice", ""], "has no tokens"),
    ],
)
def test_bad_input(fails, arguments, message):
    code, line = fails(*arguments)
    assert (code in (1, 2), message in line) == (True, True)


def test_pairs_without_a_tab(fails, tmp_path):
    (tmp_path / "pairs.tsv").write_text("a dog = un chien\n")
    assert "each needs two texts with a tab" in fails("translate", "x", "--pairs", tmp_path / "pairs.tsv")[1]
