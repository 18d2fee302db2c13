"""`fewshot`, against prompts written by hand and the methods that it calls."""

import json
import math

import pytest

import nbgpt

TEMPLATE = "{% for one in examples %}{{ one.text }} is {{ one.label }}.\n{% endfor %}{{ text }} is"
CHOICES = [" happy", " sad"]


@pytest.fixture(scope="module")
def model():
    return nbgpt.load()


@pytest.fixture
def files(tmp_path):
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    (tmp_path / "rows.csv").write_text("text,label\nThe dog,happy\nThe cat,sad\nThe tree,happy\n")
    (tmp_path / "shown.jsonl").write_text('{"text": "The boy", "label": "sad"}\n')
    return tmp_path


def prompts(*shown):
    return ["".join(shown) + f"{text} is" for text in ("The dog", "The cat", "The tree")]


def test_choices(run, model, files):
    ranked = [dict(model.rank(prompt, CHOICES)) for prompt in prompts("The boy is sad.\n")]
    arguments = ["fewshot", files / "t.jinja", files / "rows.csv", "--examples", files / "shown.jsonl"]
    arguments += ["--choice", " happy", "--choice", " sad", "--label-column", "label"]
    code, out, err = run(*arguments)
    likely = [max(one, key=one.get) for one in ranked]
    shares = [math.exp(one[best]) / sum(map(math.exp, one.values())) for one, best in zip(ranked, likely, strict=True)]
    assert (code, out) == (0, "".join(f"{b.strip()}\t{s:.4f}\n" for b, s in zip(likely, shares, strict=True)))
    n_right = sum(best == f" {label}" for best, label in zip(likely, ("happy", "sad", "happy"), strict=True))
    assert f"accuracy {n_right / 3:.4f} +/-" in err
    objects = [json.loads(line) for line in run(*arguments, "--json")[1].splitlines()]
    assert [(one["text"], one["logprobs"]) for one in objects] == list(zip(likely, ranked, strict=True))
    assert [one["prompt"] for one in objects] == prompts("The boy is sad.\n")
    assert objects[0]["row"] == {"text": "The dog", "label": "happy"}


def test_writing(run, model, files):
    code, out, _ = run("fewshot", files / "t.jinja", files / "rows.csv", "-n", 8, "--seed", 4)
    texts = [one.text.strip() for one in model.generate(prompts(), max_tokens=8, stop=["\n"], seed=4)]
    assert (code, out) == (0, "".join(f"{text}\n" for text in texts))


def test_choices_of_each_row(run, model, files):
    rows = [
        {"q": "A dog is", "options": [" an animal", " a stone"]},
        {"q": "I am", "options": [" here", " there", " a"]},
    ]
    (files / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (files / "q.jinja").write_text("{{ q }}")
    out = run("fewshot", files / "q.jinja", files / "q.jsonl", "--choices-column", "options", "--json")[1]
    assert [json.loads(line)["logprobs"] for line in out.splitlines()] == [
        dict(model.rank(row["q"], row["options"])) for row in rows
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shots", "3"], "shots is 3; it must be from 0 to 0"),
        (["--label-column", "lable"], "row 1 has no column 'lable'"),
        (["--choices-column", "text"], "row 1: choices is the text"),
        (["--max-tokens", "5000"], "row 1: its prompt has"),
        (["--choice", ""], "row 1: choice '' has no tokens"),
    ],
)
def test_bad_input(fails, files, more, message):
    assert message in fails("fewshot", files / "t.jinja", files / "rows.csv", *more)[1]


def test_bad_files(fails, files):
    (files / "bad.jinja").write_text("{% for %}")
    assert "bad.jinja: line 1" in fails("fewshot", files / "bad.jinja", files / "rows.csv")[1]
    (files / "other.jinja").write_text("{{ nothing }}")
    assert "'nothing' is undefined" in fails("fewshot", files / "other.jinja", files / "rows.csv")[1]
    assert "No such file" in fails("fewshot", files / "none.jinja", files / "rows.csv")[1]
