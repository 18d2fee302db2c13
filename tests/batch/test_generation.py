import pytest
from batch_rows import WORDS

import nbgpt
from nbgpt.batch.generation import Generating
from nbgpt.batch.job import Job, Question
from nbgpt.batch.row import row_of
from nbgpt.batch.worker import answers_of

OPTIONS = {"max_tokens": 30, "stop": ["a", "e"]}


def questions(n):
    return [
        Question(row_of(i, "f", i + 1, {"i": i}), " ".join(WORDS[: 1 + 3 * i % 11]), seed=i, size=1) for i in range(n)
    ]


def answered(model, asked, size, **options):
    answers = Generating(model, options, size).answers(iter(asked))
    return [answer for _, answer in sorted((answer.row.number, answer) for answer in answers)]


@pytest.mark.parametrize("size", [1, 3, 64])
def test_each_text_is_what_it_would_be_alone(model, size):
    asked = questions(12)
    for question, answer in zip(asked, answered(model, asked, size, max_tokens=9, top_k=5), strict=True):
        alone = model.generate(question.prompt, max_tokens=9, top_k=5, seed=question.seed)
        assert answer.fields == {
            "text": alone.text,
            "finish_reason": alone.finish_reason,
            "prompt_tokens": alone.usage.prompt_tokens,
            "completion_tokens": alone.usage.completion_tokens,
            "seed": question.seed,
        }
        assert (answer.prompt_tokens, answer.new_tokens) == (alone.usage.prompt_tokens, alone.usage.completion_tokens)


def test_a_question_is_taken_when_there_is_a_place(model):
    taken = []

    def asking():
        for question in questions(9):
            taken.append(question)
            yield question

    for n_answered, _ in enumerate(Generating(model, {"max_tokens": 5}, 4).answers(asking()), start=1):
        assert len(taken) <= n_answered + 4
    assert len(taken) == 9


def test_too_long_prompts_and_impossible_texts_are_errors_of_their_rows(model):
    asked = questions(3)
    asked[1] = Question(asked[1].row, "word " * 300, 1, 1)
    answers = answered(model, asked, 2, max_tokens=5)
    assert [bool(answer.error) for answer in answers] == [False, True, False]
    assert "this model's context is 200" in answers[1].error


def test_options_are_checked_before_any_row(model):
    with pytest.raises(ValueError, match="top_k is -1"):
        Generating(model, {"top_k": -1}, 4)


def test_what_grows_is_freed_when_the_answers_are_dropped(model):
    answers = Generating(model, {"max_tokens": 50}, 4).answers(iter(questions(9)))
    next(answers)
    answers.close()
    assert model.engine.kv_bytes_in_use == 0


def test_prompts_get_more_rows_of_a_step_than_in_a_conversation(model_file):
    """The texts are the same, and it takes fewer passes."""
    texts, n_passes = [], []
    asked = [
        Question(row_of(i, "f", i + 1, {"i": i}), f"{i} " + " ".join(WORDS * 2), seed=i, size=1) for i in range(12)
    ]
    for begin in (
        lambda model: Generating(model, OPTIONS, 4),
        lambda model: answers_of(model, Job(options=OPTIONS), 4),
    ):
        with nbgpt.load(model_file) as model:
            answers, calls = begin(model), []
            run = model.engine.runner.thread_pool.run
            model.engine.runner.thread_pool.run = lambda *args, run=run, calls=calls: calls.append(args) or run(*args)
            texts.append(sorted((one.row.number, one.fields["text"]) for one in answers.answers(iter(asked))))
            n_passes.append(len(calls))
    assert texts[0] == texts[1]
    assert n_passes[1] < n_passes[0]
