"""Log-probabilities of texts and continuations, against the reference in float64."""

import math
import threading

import numpy as np
import pytest
import reference
from folders import TOKENIZER, text_config, write_text_model
from models import random_params

import nbgpt
from nbgpt.tasks.scoring import Score

CONFIG = text_config(n_ctx=150)
PARAMS = random_params(CONFIG)
EOS = TOKENIZER.eos_id
TEXTS = [
    "It was a dark and stormy night.",
    "",
    "a",
    "Naïve café 😀 日本語",
    "The Time Traveller (for so it will be convenient to speak of him) was expounding",
    "9",
]
TOLERANCE = 2e-4  # in nats: float32 logits of random weights reach 20


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        dtype: write_text_model(folder / f"{dtype}.safetensors", CONFIG, PARAMS, dtype) for dtype in ("float32", "int8")
    }


@pytest.fixture(scope="module")
def model(files):
    return nbgpt.load(files["float32"], threads=2)


@pytest.fixture(scope="module")
def expected():
    """log p of each of some ids but the first."""

    def log_probabilities(ids):
        logits = reference.gpt2(np.array(ids[:-1]), PARAMS, CONFIG)
        return np.log(reference.softmax(logits))[np.arange(len(ids) - 1), ids[1:]]

    return log_probabilities


def test_score(model, expected):
    text = TEXTS[0]
    ids = TOKENIZER.encode(text)
    score = model.score(text)
    assert isinstance(score, Score)
    assert score.tokens == ids
    assert score.logprobs[0] is None
    np.testing.assert_allclose(score.logprobs[1:], expected(ids), rtol=0, atol=TOLERANCE)
    assert score.total == pytest.approx(expected(ids).sum(), abs=len(ids) * TOLERANCE)
    assert score.mean == score.total / (len(ids) - 1)


def test_a_beginning_scores_the_first_token_too(model, files, expected, tmp_path):
    ids = TOKENIZER.encode(TEXTS[0])
    score = model.score(TEXTS[0], bos=True)
    assert score.tokens == ids
    np.testing.assert_allclose(score.logprobs, expected([EOS, *ids]), rtol=0, atol=TOLERANCE)
    assert score.mean == score.total / len(ids)
    begins = nbgpt.load(write_text_model(tmp_path / "m.safetensors", CONFIG, PARAMS, bos=True))
    assert begins.score(TEXTS[0]) == score  # the file says so
    assert begins.score(TEXTS[0], bos=False) == model.score(TEXTS[0])


@pytest.mark.parametrize("bos", [False, True])
def test_texts_of_tokens_join_to_the_text(model, bos):
    for text in TEXTS:
        score = model.score(text, bos=bos)
        assert "".join(score.texts) == text
        assert len(score.texts) == len(score.tokens) == len(score.logprobs)


@pytest.mark.parametrize("bos", [False, True])
def test_next_to_nothing(model, bos):
    empty = model.score("", bos=bos)
    assert empty == Score([], [], [])
    assert empty.total == 0
    assert math.isnan(empty.mean)
    assert (model.score("a").logprobs, model.score("a").total) == ([None], 0)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("bos", [False, True])
def test_a_batch_is_each_text_alone_to_the_bit(files, dtype, bos):
    texts = TEXTS * 6  # several passes, and texts that lie in two of them
    model = nbgpt.load(files[dtype], threads=2)
    assert sum(len(TOKENIZER.encode(text)) for text in texts) > 300
    assert model.score_batch(texts, bos=bos) == [model.score(text, bos=bos) for text in texts]
    assert model.score_batch([]) == []
    assert model.engine.kv_bytes_in_use == 0


def test_a_score_is_that_of_perplexity(model):
    ids = TOKENIZER.encode(TEXTS[4])
    assert model.score(TEXTS[4]).logprobs[1:] == (-model.engine.nll(ids)).tolist()


def test_the_longest_text(model, expected):
    """The last token is not read, so there is room for one more than the context."""
    text = "a" * 151
    while len(TOKENIZER.encode(text)) < 151:
        text += "a"
    ids = TOKENIZER.encode(text)
    assert len(ids) == 151
    np.testing.assert_allclose(model.score(text).logprobs[1:], expected(ids), rtol=0, atol=TOLERANCE)
    with pytest.raises(ValueError, match=r"text 'a+ has 152 tokens; this model's context is 150: shorten it"):
        model.score(text, bos=True)
    with pytest.raises(ValueError, match="this model's context is 150"):
        model.score_batch(["short", text * 2])


def test_a_text_in_place_of_a_list(model):
    with pytest.raises(TypeError, match="texts is the text 'It was'; it must be a list of texts"):
        model.score_batch("It was")
    with pytest.raises(TypeError, match="choices is the text 'yes'; it must be a list of texts"):
        model.rank("It was", "yes")


# rank

CHOICES = [" a dark night", " night", " the end", "!", " a dark and stormy night, as never before"]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("text", ["It was", "", TEXTS[4] + "\n"])
def test_rank(model, expected, text, normalize, bos):
    before = model.encode(text, bos)
    values = {}
    for choice in CHOICES:
        ids = TOKENIZER.encode(choice)
        logprobs = expected([*before, *ids])[len(before) - 1 :]
        values[choice] = logprobs.mean() if normalize else logprobs.sum()
    ranked = model.rank(text, CHOICES, normalize=normalize, bos=bos)
    assert [choice for choice, _ in ranked] == sorted(CHOICES, key=values.__getitem__, reverse=True)
    for choice, logprob in ranked:
        assert isinstance(logprob, float)
        assert logprob == pytest.approx(values[choice], abs=20 * TOLERANCE)
    assert model.engine.kv_bytes_in_use == 0


def test_normalizing_matters(model):
    orders = [
        [choice for choice, _ in model.rank("It was", CHOICES, normalize=normalize)] for normalize in (False, True)
    ]
    assert orders[0] != orders[1]


def test_company_does_not_matter_to_the_bit(model):
    together = dict(model.rank(TEXTS[4], CHOICES))
    assert together == {choice: model.rank(TEXTS[4], [choice])[0][1] for choice in CHOICES}
    many = [f" number {n}" for n in range(60)]  # several passes
    assert dict(model.rank(TEXTS[4], many + CHOICES)) == dict(model.rank(TEXTS[4], many)) | together


def test_spaces_at_the_end_of_the_text_are_the_choices(model):
    ranked = model.rank("It was  ", ["night", "a dark night"])
    assert [(f"  {choice}", logprob) for choice, logprob in ranked] == model.rank(
        "It was", ["  night", "  a dark night"]
    )


def test_equal_choices_keep_their_order(model):
    ranked = model.rank("It was", ["x", " a", "x"])
    assert len(ranked) == 3
    assert len({logprob for choice, logprob in ranked if choice == "x"}) == 1


def test_the_text_is_read_once(model, monkeypatch):
    rows = []
    forward = model.engine.runner.forward

    def count(ids, *arguments, **options):
        rows.append(len(ids))
        return forward(ids, *arguments, **options)

    monkeypatch.setattr(model.engine.runner, "forward", count)
    model.rank(TEXTS[4], CHOICES)
    choices = sum(len(TOKENIZER.encode(choice)) for choice in CHOICES)
    assert sum(rows) == len(TOKENIZER.encode(TEXTS[4])) - 1 + choices


def test_choices_may_come_one_by_one(model):
    assert model.rank("It was", iter(CHOICES)) == model.rank("It was", CHOICES)


@pytest.mark.parametrize("text", [None, 5, b"x", ["a"], []])
def test_what_is_no_text(model, text):
    for ask in (model.score, model.trace, lambda text: model.rank(text, ["a"]), lambda text: model.rank("a", [text])):
        with pytest.raises(ValueError, match=r"(text|choice) is .*; it must be a str"):
            ask(text)


def test_bad_choices(model):
    with pytest.raises(ValueError, match="choices is empty; give at least one"):
        model.rank("It was", iter([]))
    with pytest.raises(TypeError, match="choices is 5; it must be a list of texts"):
        model.rank("It was", 5)
    with pytest.raises(ValueError, match="choices is empty; give at least one"):
        model.rank("It was", [])
    with pytest.raises(ValueError, match="choice '' has no tokens; leave it out"):
        model.rank("It was ", [" a", ""])
    with pytest.raises(ValueError, match=r"the text and choice 'ab' make \d+ tokens; this model's context is 150"):
        model.rank("1" * 200, ["ab"])
    assert model.engine.kv_bytes_in_use == 0


def test_threads_may_share_a_model(model):
    alone = (model.score_batch(TEXTS), model.rank(TEXTS[4], CHOICES))
    found = [None] * 6

    def work(n):
        found[n] = (model.score_batch(TEXTS), model.rank(TEXTS[4], CHOICES))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 6
    assert model.engine.kv_bytes_in_use == 0
