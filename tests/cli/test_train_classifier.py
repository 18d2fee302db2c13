"""`train-classifier`: from a file of labelled texts to a classifier that `classify` finds by its name."""

import csv
import json
import sys

import numpy as np
import pytest

import nbgpt
from nbgpt.cli.invocation import installation
from nbgpt.conversion.registry import models_folder

ROWS = [
    (f"{n} {word} {other}", label)
    for label, words in {"calm": ("sea", "sand"), "grim": ("storm", "wolf")}.items()
    for word in words
    for other in ("here", "there")
    for n in range(8)
]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A table in the working folder."""
    monkeypatch.chdir(tmp_path)

    def data(name="moods.csv", rows=ROWS, columns=("text", "label")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if name.endswith("tsv") else ",")
            writer.writerows([columns, *rows])
        return name

    return data


def test_a_classifier_is_found_by_its_name(run, data, random_file, tmp_path):
    code, out, err = run("train-classifier", data(), "--model", random_file)
    assert (code, err) == (0, "")
    path = models_folder() / "moods-float32.safetensors"
    assert (
        f"classifier   {path}\nreport       {path.with_suffix('.html')}\n             {path.with_suffix('.md')}\n"
        in out
    )
    assert all(file.is_file() for file in (path, path.with_suffix(".html"), path.with_suffix(".md")))
    assert out.startswith("51 texts to train on, 13 to measure with, 2 labels.\nLogistic regression (C = ")
    assert [line.split("  ")[0] for line in out.splitlines()[4:7]] == ["this classifier", "TF-IDF", "largest class"]
    code, out, _ = run("classify", "moods", "--json", stdin=b"3 wolf there\n")
    assert code == 0
    [expected] = nbgpt.load("moods").classify(["3 wolf there"])
    assert json.loads(out) == {"text": "3 wolf there", "label": expected.label, "probabilities": expected.probabilities}
    assert run("train-classifier", data(), "--model", random_file)[0] == 0  # again, over the old one
    path.unlink()


def test_options(run, data, random_file, tmp_path):
    table = data("t.tsv", ROWS, ("body", "mood"))
    (tmp_path / "v.jsonl").write_text(
        "\n".join(json.dumps({"body": f"a {w}", "mood": m}) for w, m in (("sea", "calm"), ("wolf", "grim")))
    )
    code, out, _ = run(
        *("train-classifier", table, "--model", random_file, "--text-column", "body", "--label-column", "mood"),
        *("--validation-file", "v.jsonl", "--pooling", "last", "--layer", "-1", "--seed", 3, "--bos"),
        *("-o", "out.safetensors", "--export", "hf"),
    )
    assert code == 0
    assert out.startswith("64 texts to train on, 2 to measure with")
    assert "the last hidden state, random float32, layer 2 of 2." in out
    assert out.endswith("exported     hf\n")
    model, folder = nbgpt.load("out.safetensors"), nbgpt.load("hf", dtype="float32")
    assert model.weights.bos
    assert folder.weights.bos
    for one, other in zip(model.classify(["a sea"]), folder.classify(["a sea"]), strict=True):
        np.testing.assert_allclose([*one.probabilities.values()], [*other.probabilities.values()], atol=1e-5)


def test_labels_that_are_lists(run, tmp_path, monkeypatch, random_file):
    monkeypatch.chdir(tmp_path)
    records = [
        {"text": text, "label": [label, "eight"] if text[0] == "7" else [label] if label == "grim" else []}
        for text, label in ROWS
    ]
    (tmp_path / "tags.jsonl").write_text("\n".join(map(json.dumps, records)))
    code, out, _ = run("train-classifier", "tags.jsonl", "--model", random_file, "-o", "tags.safetensors")
    assert code == 0
    assert "3 labels" in out
    assert nbgpt.load("tags.safetensors").config.multi_label


def test_what_was_done_to_the_data_is_said(run, data, random_file):
    rows = [*ROWS, ("", "calm"), ("no label", ""), ("once", "rare")]
    code, _, err = run("train-classifier", data(rows=rows), "--model", random_file, "-o", "c.safetensors")
    assert code == 0
    assert err.splitlines() == [
        "nbgpt: 1 text left out: empty",
        "nbgpt: 1 text left out: without a label",
        "nbgpt: label 'rare' left out: a single text has it",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.csv",), "nowhere.csv: No such file or directory"),
        (("moods.txt",), "moods.txt has the ending '.txt'; this reads .csv, .tsv and .jsonl"),
        (("moods.csv", "--text-column", "body"), "row 1 has no column 'body'; its columns are 'text', 'label'"),
        (
            ("one.csv",),
            "a classifier needs at least two labels with two texts each; found one label, 'calm' in 9 texts",
        ),
        (("moods.csv", "--validation", "1.5"), "validation is 1.5; it must be above 0 and below 1"),
        (("moods.csv", "--layer", "9"), "layer is 9; it must be from 0"),
        (("moods.csv", "--seed", "-1"), "seed is -1; it must be"),
        (("moods.csv", "-o", "story-34m"), "'story-34m' is the name of a model already"),
        (("moods.csv", "-o", "other.safetensors"), "other.safetensors is no classifier, and would be lost: choose"),
        (("moods.csv", "-o", "a/b"), "output is 'a/b'; it must be a plain name, or a file that ends in .safetensors"),
        (("moods.csv", "-o", "c.safetensors", "--export", "hf"), "cannot export pooling 'both'"),
    ],
)
def test_what_cannot_be(fails, data, random_file, arguments, message, tmp_path):
    data()
    data("moods.txt")
    data("one.csv", [(f"text {n}", "calm") for n in range(9)])
    (tmp_path / "other.safetensors").write_bytes(random_file.read_bytes())
    before = sorted(tmp_path.iterdir())
    code, line = fails("train-classifier", *arguments, "--model", random_file)
    assert code in (1, 2)
    assert message in line
    assert sorted(tmp_path.iterdir()) == before


def test_usage(fails):
    code, line = fails("train-classifier", "a.csv", "--layer", "first")
    assert code == 2
    assert "'first' is no layer: a whole number, or auto" in line


def test_without_scikit_learn(fails, data, random_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    code, line = fails("train-classifier", data(), "--model", random_file)
    assert (code, line) == (1, f"training needs the package scikit-learn: {installation('nbgpt[train]')}")
