"""The prompts of GPT-2's paper, word for word, and where each answer ends."""

import numpy as np
import pytest
from folders import TOKENIZER, ballot, reciter, write_random_model, write_text_model

import nbgpt
from nbgpt.tasks.zero_shot import answer, answer_prompt, summarize, summary_prompt, translate, translation_prompt

PAIRS = [("sea otter", "loutre de mer"), ("I am cold.", "J'ai froid.")]


class Parrot:
    """Says the same whatever it is asked, and notes what was asked and how much of it was heard."""

    def __init__(self, text):
        self.text = text
        self.heard = ""

    def stream(self, prompt, **options):
        self.prompt, self.options = prompt, options
        for character in self.text:
            self.heard += character
            yield character


def test_prompts():
    assert summary_prompt("Once upon a time.\n\n") == "Once upon a time.\nTL;DR:"
    assert translation_prompt("Hello.", PAIRS) == "sea otter = loutre de mer\nI am cold. = J'ai froid.\nHello. ="
    assert answer_prompt("Who?") == "Q: Who?\nA:"
    assert answer_prompt("Who?", [("Where?", "Here."), ("When?", "Now.")], "A text.\n") == (
        "A text.\n\nQ: Where?\nA: Here.\n\nQ: When?\nA: Now.\n\nQ: Who?\nA:"
    )


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("\n\n One. Two!\nThree? Four.", "One. Two!\nThree?"),
        (' It is 3.5 m. "Is it?" (He said so.) And so', 'It is 3.5 m. "Is it?" (He said so.)'),
        (" One. Two and no end", "One. Two and no end"),
        (" One. Two. Three.", "One. Two. Three."),
        (" \n", ""),
    ],
)
def test_a_summary_is_three_sentences(text, summary):
    parrot = Parrot(text)
    assert summarize(parrot, "An article.") == summary
    assert parrot.prompt == summary_prompt("An article.")
    assert parrot.options == {"max_tokens": 100, "temperature": 1.0, "top_k": 2}


@pytest.mark.parametrize(
    ("text", "translation"),
    [
        (" Bonjour. Et plus. Encore", "Bonjour."),
        (" loutre de mer\nHello = Bonjour\n", "loutre de mer"),
        ("\n\n Bonjour", "Bonjour"),
    ],
)
def test_a_translation_is_a_sentence_or_a_line(text, translation):
    parrot = Parrot(text)
    assert translate(parrot, "Hello.", PAIRS) == translation
    assert parrot.prompt == translation_prompt("Hello.", PAIRS)
    assert parrot.options == {"max_tokens": 100, "greedy": True}
    with pytest.raises(ValueError, match="pairs is empty; give at least one example"):
        translate(parrot, "Hello.", [])


def test_an_answer_is_a_line():
    parrot = Parrot(" Charles Darwin. In 1859. \n\nQ: And")
    assert answer(parrot, "Who?", PAIRS, "A text.") == "Charles Darwin. In 1859."
    assert parrot.prompt == answer_prompt("Who?", PAIRS, "A text.")
    assert parrot.options == {"max_tokens": 100, "greedy": True}
    assert parrot.heard == " Charles Darwin. In 1859. \n"  # what comes after it was not written at all


@pytest.mark.parametrize("pairs", [["efg"], ["ab"], [("a",)], [("a", None)], "ab"])
def test_pairs_are_two_texts_each(pairs):
    for task in (translate, answer):
        with pytest.raises(ValueError, match=r"pairs has .*; each must be two texts"):
            task(Parrot("a"), "a", pairs)
    with pytest.raises(ValueError, match="pairs is 5; it must be a list of pairs of texts"):
        answer(Parrot("a"), "a", 5)


def test_a_task_has_one_answer():
    for task, inputs in ((summarize, ["a"]), (translate, ["a", PAIRS]), (answer, ["a"])):
        with pytest.raises(ValueError, match="n is 2; it must be left out: a task has one answer"):
            task(Parrot("a"), *inputs, n=2)


def test_options_are_the_callers():
    parrot = Parrot("a")
    summarize(parrot, "An article.", top_k=5, seed=3)
    assert parrot.options == {"max_tokens": 100, "temperature": 1.0, "top_k": 5, "seed": 3}


def test_a_model_answers(tmp_path):
    """One that recites from its first position on, so that the prompt's length says where it begins."""
    n_prompt = len(TOKENIZER.encode(answer_prompt("a")))
    recited = "9" * (n_prompt - 1) + " Charles Darwin.\nQ: And"
    assert TOKENIZER.encode(recited)[: n_prompt - 1] == TOKENIZER.encode("9") * (n_prompt - 1)
    model = nbgpt.load(write_text_model(tmp_path / "m.safetensors", *reciter(recited)))
    assert answer(model, "a") == "Charles Darwin."
    assert model.engine.kv_bytes_in_use == 0


def test_a_summary_is_drawn_from_two_tokens(tmp_path):
    logits = np.zeros(TOKENIZER.n_vocab)
    x, y = (TOKENIZER.encode(letter)[0] for letter in "xy")
    logits[[x, y]] = 3, 3.1
    model = nbgpt.load(write_text_model(tmp_path / "m.safetensors", *ballot(logits)))
    summary = summarize(model, "a", seed=1)
    assert set(summary) == {"x", "y"}
    assert len(summary) == 100
    assert summarize(model, "a", seed=1) == summary


def test_an_article_that_is_too_long(tmp_path):
    model = nbgpt.load(write_random_model(tmp_path / "m.safetensors"))
    with pytest.raises(ValueError, match=r"100 new ones need \d+ positions; this model's context is 200"):
        summarize(model, "9" * 300)
    assert isinstance(summarize(model, "9" * 300, overflow="truncate_left"), str)
