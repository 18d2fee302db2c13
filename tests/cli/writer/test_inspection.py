"""What the terminal says of the model, beside the model's logits and its trace."""

import re

import numpy as np
import pytest

from nbgpt.cli.writer.inspection import N_WORDS, last_word, next_words, tokens_table, why_table
from nbgpt.operations import softmax

TEXT = "Once upon a time there was a little"


def test_next_words_are_the_likeliest_tokens_and_their_ends(story):
    """The slow way: the whole vocabulary sorted, and each word grown a token at a time by the model's logits."""
    encode, decode = story.encode, story.tokenizer.decode
    probabilities = softmax(story.logits(encode(TEXT))[-1].astype(np.float64))
    likeliest = [int(i) for i in np.argsort(-probabilities) if i != story.tokenizer.eos_id][:N_WORDS]
    expected = {}
    for token in likeliest:
        ids, probability = [token], probabilities[token]
        while len(ids) < 6:
            rest = softmax(story.logits([*encode(TEXT), *ids])[-1].astype(np.float64))
            following = int(rest.argmax())
            if not (decode(ids)[-1].isalnum() and decode([following])[0].isalnum()):
                break
            ids.append(following)
            probability *= rest[following]
        expected[decode(ids)] = probability
    words, p_end = next_words(story, TEXT)
    assert {word.text: word.probability for word in words} == pytest.approx(expected, rel=1e-4)
    found = [word.probability for word in words]
    assert found == sorted(found, reverse=True)
    assert p_end == pytest.approx(probabilities[story.tokenizer.eos_id], rel=1e-4)


def test_next_words_of_nothing_and_of_too_much(story):
    words, _ = next_words(story, "")
    assert len(words) == N_WORDS
    words, _ = next_words(story, "word " * (story.config.n_ctx + 50))
    assert words


def test_tokens(story):
    table = tokens_table(story, "Once upon\n", 80)
    ids = story.encode("Once upon\n")
    names = [story.tokenizer.decode([i], skip_special=False).replace("\n", r"\n") for i in ids]
    cells = "  ".join(f'{i} "{name}"' for i, name in zip(ids, names, strict=True))
    n_ctx = story.config.n_ctx
    assert table == f"{cells}\n{len(ids)} tokens. The model sees {n_ctx} at a time: {n_ctx - len(ids)} more fit."


def test_many_tokens(story):
    text = "word and " * story.config.n_ctx
    *lines, count = tokens_table(story, text, 60).splitlines()
    assert count.startswith(f"{len(story.encode(text))} tokens; the last 60 are shown. ")
    assert count.endswith("it forgets the beginning.")
    assert len(re.findall(r'\d+ "', "\n".join(lines))) == 60
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (TEXT, " little"),
        ("He was antediluvian", " antediluvian"),
        ("He went.", " went."),
        ("Once", "Once"),
        ("a 😀!\n", " 😀!\n"),
        ("...", "..."),
    ],
)
def test_the_last_word(story, text, word):
    ids = story.encode(text)
    assert story.tokenizer.decode(ids[last_word(story, ids) :]) == word


def test_why(story):
    """The table's last row is the model's prediction; the rows are those of the trace."""
    ids = story.encode(TEXT)
    trace = story.trace(ids[:-1])
    _, heading, *rows = why_table(story, TEXT).splitlines()
    assert heading.split()[1:3] == ['"', 'little"']
    assert len(rows) == story.config.n_layer + 1
    for layer, row in enumerate(rows):
        named = re.findall(r'"([^"]*)" ([\d.]+) %', row)
        expected = zip(trace.lens_ids[layer, -1], trace.lens_probabilities[layer, -1], strict=True)
        top = [(trace.texts[int(i)].replace("\n", r"\n"), f"{100 * p:.1f}") for i, p in expected][:3]
        assert named == top
    probabilities = softmax(story.logits(ids[:-1])[-1])
    share, rank = re.match(r" +\d+ +([\d.]+) % +(\d+)", rows[-1]).groups()
    assert float(share) == pytest.approx(100 * probabilities[ids[-1]], abs=0.06)
    assert int(rank) == 1 + (probabilities > probabilities[ids[-1]]).sum()


def test_why_needs_something_before_the_word(story):
    for text in ("", "Once"):
        if story.tokenizer.adds_bos and text:
            continue
        with pytest.raises(ValueError, match="write some first"):
            why_table(story, text)
