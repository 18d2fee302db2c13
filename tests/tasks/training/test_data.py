"""What is done to labelled texts before a classifier is trained on them."""

import json

import numpy as np
import pytest

from nbgpt.tasks.training.data import divide, read_examples


def rows(**counts):
    """Different texts of each label."""
    pairs = [(f"{label} text {number}", label) for label, n in counts.items() for number in range(n)]
    return [text for text, _ in pairs], [label for _, label in pairs]


def divided(texts, labels, *arguments, **options):
    notes = []
    return divide(texts, labels, *arguments, **options, say=notes.append), notes


def names(data, examples):
    return [data.labels[target] for target in examples.targets]


def test_a_division_keeps_the_shares_of_labels_and_loses_nothing():
    texts, labels = rows(b=60, a=30, c=10)
    data, notes = divided(texts, labels, 0.2, seed=3)
    assert data.labels == ("a", "b", "c")
    assert data.counts(data.training).tolist() == [24, 48, 8]
    assert data.counts(data.validation).tolist() == [6, 12, 2]
    assert sorted(data.training.texts + data.validation.texts) == sorted(texts)
    given = dict(zip(texts, labels, strict=True))
    for examples in (data.training, data.validation):
        assert names(data, examples) == [given[text] for text in examples.texts]
    assert notes == [
        "labels of unequal size, from 8 texts (c) to 48 (b): probabilities keep these sizes, "
        "macro F1 counts each label alike"
    ]


def test_a_division_follows_the_seed():
    texts, labels = rows(a=50, b=50)
    drawn = [tuple(divided(texts, labels, 0.3, seed=seed)[0].validation.texts) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_is_in_training_too_leaves_validation():
    texts, labels = rows(a=20, b=20)
    others = ["A   text 3", "b text 4\n", "new one", "new two"], ["a", "b", "a", "b"]
    data, notes = divided(texts, labels, others)
    assert data.validation.texts == ["new one", "new two"]
    assert data.training.texts == texts
    assert notes == ["2 texts left out of validation: in training too"]
    with pytest.raises(ValueError, match="no text is left to validate with"):
        divide(texts, labels, (texts[:3], labels[:3]))


def test_texts_that_are_empty_or_have_no_label():
    texts, labels = rows(a=10, b=10)
    data, notes = divided([*texts, "", " \n", None, "x", "y"], [*labels, "a", "b", "a", "", None], 0.2)
    assert len(data.training) + len(data.validation) == 20
    assert notes == ["3 texts left out: empty", "2 texts left out: without a label"]


def test_labels_of_one_text_are_left_out():
    texts, labels = rows(a=10, b=10, rare=1)
    data, notes = divided(texts, labels)
    assert data.labels == ("a", "b")
    assert notes == ["label 'rare' left out: a single text has it"]


def test_one_text_under_two_labels():
    texts, labels = rows(a=20, b=20)
    _, notes = divided([*texts, "A text 0"], [*labels, "b"], (["new"], ["a"]))
    assert notes == ["1 text in training under several labels, as they are given"]


def test_labels_may_be_numbers():
    data, _ = divided([f"t{n}" for n in range(40)], [True, False, np.int64(7), 3] * 10)
    assert data.labels == ("3", "7", "false", "true")


def test_lists_of_labels():
    texts = [f"t{n}" for n in range(40)]
    data, notes = divided(texts, [["x", "y"], ("y",), [], {"z", "x"}] * 9 + [["x", "once"]] * 1 + [[]] * 3, 0.25)
    assert data.multi_label
    assert data.labels == ("x", "y", "z")
    assert data.training.targets.shape == (30, 3)
    number = dict(zip(data.training.texts, data.training.targets.tolist(), strict=True))
    for n, row in enumerate([[True, True, False], [False, True, False], [False, False, False], [True, False, True]]):
        assert all(number[text] == row for text in texts[n:36:4] if text in number)
    assert notes == ["label 'once' left out: fewer than two texts have it, or fewer than two lack it"]
    assert data.counts(data.validation).tolist() == data.validation.targets.sum(0).tolist()


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ([], [], "needs at least two labels with two texts each; found none in 0 texts"),
        (*rows(a=9), "needs at least two labels with two texts each; found one label, 'a' in 9 texts"),
        (*rows(a=9, b=1), "found one label, 'a' in 9 texts"),
        (["a"], [], "there are 1 texts and 0 labels; give one for each"),
        ([5, "a"], ["a", "b"], "text 1 is 5; it must be a text"),
        (["a", "b"], ["a", 0.5], "label 2 is 0.5; it must be a text or a whole number"),
        (["a", "b"], ["a", ["b"]], "some labels are lists and others are not"),
        (["a", "b"], [["a"], [["b"]]], r"label 2 is \['b'\]; it must be"),
        (*rows(a=2, b=2, c=1), "found|too few"),
    ],
)
def test_data_that_cannot_be_used(texts, labels, message):
    if message == "found|too few":
        divide(texts, labels, 0.5)  # two of each are just enough
        return
    with pytest.raises(ValueError, match=message):
        divide(texts, labels)


@pytest.mark.parametrize("share", [0, 1, -0.5, 1.5, float("nan"), "half", True])
def test_shares_that_leave_nothing(share):
    with pytest.raises(ValueError, match=r"validation is .*; it must be above 0 and below 1"):
        divide(*rows(a=9, b=9), share)


def test_too_few_texts():
    with pytest.raises(ValueError, match="4 texts of 2 labels are too few to train on some and validate with others"):
        divide(*rows(a=2, b=2), 0.9)


def test_validation_texts_of_other_labels():
    texts, labels = rows(a=9, b=9)
    with pytest.raises(ValueError, match="the texts to validate with have label 'c', which the texts to train on have"):
        divide(texts, labels, (["new"], ["c"]))
    with pytest.raises(ValueError, match="labels are lists in the texts to train on or in those to validate with"):
        divide(texts, labels, (["new"], [["a"]]))


def test_a_file(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"body": f"t{n}", "tags": ["x"] * (n % 2)}) for n in range(4)))
    assert read_examples(file, "body", "tags") == ([f"t{n}" for n in range(4)], [[], ["x"]] * 2)
    with pytest.raises(ValueError, match="has no column 'text'; its columns are 'body', 'tags'"):
        read_examples(file)
