import math

import pytest
from batch_rows import WORDS
from folders import write_random_model

import nbgpt
from nbgpt.batch.job import Question
from nbgpt.batch.reading import Reading
from nbgpt.batch.row import row_of

TEXTS = [" ".join(WORDS[: 1 + n % 9]) for n in range(70)]
CHOICES = [" the", " a dog", " a"]


def answers(model, task, texts=TEXTS, **options):
    rows = [row_of(n, "f", n + 1, {"choices": CHOICES[n % 2 :]}) for n in range(len(texts))]
    asked = [Question(row, text, 0, 1) for row, text in zip(rows, texts, strict=True)]
    return list(Reading(model, task, options).answers(iter(asked)))


def test_scores(model):
    for text, answer in zip(TEXTS, answers(model, "score"), strict=True):
        score = model.score(text)
        assert answer.fields["total"] == score.total
        assert answer.fields["logprobs"] == score.logprobs
        assert answer.fields["mean"] == (None if math.isnan(score.mean) else score.mean)
        assert answer.prompt_tokens == len(model.encode(text))


def test_embeddings(model):
    for text, answer in zip(TEXTS, answers(model, "embed", pooling="last", normalize=False), strict=True):
        vector = model.embed(text, "last", normalize=False)
        assert (vector == [vector.dtype.type(number) for number in answer.fields["embedding"]]).all()


def test_labels(tmp_path):
    path = write_random_model(tmp_path / "labels.safetensors", "int8", n_labels=3)
    with nbgpt.load(path) as model:
        for text, answer in zip(TEXTS[:5], answers(model, "classify", TEXTS[:5]), strict=True):
            (found,) = model.classify([text])
            assert answer.fields == {"label": found.label, "probabilities": found.probabilities}


def test_ranks_and_choices(model):
    ranked = answers(model, "rank", TEXTS[:6], choice=CHOICES)
    chosen = answers(model, "choices", TEXTS[:6], choice=CHOICES, normalize=False)
    own = answers(model, "rank", TEXTS[:6], choices_column="choices")
    for number, text in enumerate(TEXTS[:6]):
        expected = model.rank(text, CHOICES)
        assert [(one["choice"], one["logprob"]) for one in ranked[number].fields["ranked"]] == expected
        assert {one["choice"] for one in own[number].fields["ranked"]} == set(CHOICES[number % 2 :])
        sums = dict(model.rank(text, CHOICES, normalize=False))
        odds = chosen[number].fields["probabilities"]
        assert chosen[number].fields["choice"] == max(sums, key=sums.get)
        assert sum(odds.values()) == pytest.approx(1)
        assert odds[" a"] / odds[" the"] == pytest.approx(math.exp(sums[" a"] - sums[" the"]))


def test_one_bad_row_does_not_spoil_the_others(model):
    texts = [TEXTS[5], "word " * 300, TEXTS[6]]
    for task in ("score", "embed"):
        found = answers(model, task, texts)
        assert [bool(answer.error) for answer in found] == [False, True, False]
        assert "this model's context is 200" in found[1].error
        assert found[2].fields == answers(model, task, texts[2:])[0].fields
    rows = [row_of(n, "f", 1, {"choices": value}) for n, value in enumerate(([" a"], "a", [1], None, []))]
    asked = [Question(row, "text", 0, 1) for row in rows]
    found = list(Reading(model, "rank", {"choices_column": "choices"}).answers(iter(asked)))
    assert [bool(answer.error) for answer in found] == [False, True, True, True, True]
