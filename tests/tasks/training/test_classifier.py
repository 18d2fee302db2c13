"""A classifier's labels, and its file: the same labels without scikit-learn."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from folders import text_config, write_folder, write_text_model
from models import random_params

import nbgpt
from nbgpt.cli.main import main
from nbgpt.conversion.registry import open_model
from nbgpt.formats import FormatError
from nbgpt.weights import BaseReference, fingerprint, read_head, save_head

TEXTS = ["calm sea", "", "a wolf at night", "9" * 500, "dance and sing " * 20]


@pytest.mark.parametrize("which", ["classifier", "binary", "tagger"])
def test_a_loaded_one_says_the_same(which, request, tmp_path):
    found = request.getfixturevalue(which)
    loaded = nbgpt.load(found.save(tmp_path / "c.safetensors"))
    expected, labels = found.predict_proba(TEXTS), found.predict(TEXTS)
    for one, odds, label in zip(loaded.classify(TEXTS), expected, labels, strict=True):
        assert list(one.probabilities) == list(found.labels)
        np.testing.assert_array_equal(list(one.probabilities.values()), odds)
        assert one.logits.dtype == np.float32
        if which == "tagger":
            assert label == [name for name, p in one.probabilities.items() if p > 0.5]
        else:
            assert one.label == label
            assert odds.sum() == pytest.approx(1)
    assert loaded.classify([]) == []
    assert found.predict([]) == []
    assert found.predict_proba([]).shape == (0, len(found.labels))


def test_a_batch_is_each_text_alone_to_the_bit(classifier):
    together = classifier.predict_proba(TEXTS)
    for text, odds in zip(TEXTS, together, strict=True):
        np.testing.assert_array_equal(classifier.predict_proba([text])[0], odds)


def test_scikit_learn_is_not_needed(classifier, tmp_path):
    path = classifier.save(tmp_path / "c.safetensors")
    code = (
        "import sys; sys.modules['sklearn'] = sys.modules['scipy'] = None\n"
        "import json, nbgpt\n"
        "print(json.dumps([one.probabilities for one in nbgpt.load(sys.argv[1]).classify(['calm sea'])]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True, text=True)
    [odds] = json.loads(done.stdout)
    np.testing.assert_array_equal(list(odds.values()), classifier.predict_proba(["calm sea"])[0])


def test_what_a_loaded_one_is(classifier, tmp_path, base):
    loaded = nbgpt.load(classifier.save(tmp_path / "c.safetensors", name="moods"))
    assert (loaded.name, loaded.dtype) == ("moods", "float32")
    assert loaded.weights.path == tmp_path / "c.safetensors"
    assert loaded.config.n_labels == 3
    assert loaded.weights.metadata["notes"] == f"classifier of 3 labels, trained on 96 texts; its base model: {base}"
    text = loaded.generate("calm", max_tokens=5, greedy=True)
    assert text.text == nbgpt.load(base).generate("calm", max_tokens=5, greedy=True).text


def test_texts_begin_as_in_training(model, labelled, tmp_path):
    texts, labels = labelled
    found = nbgpt.train_classifier(model, texts, labels, layer=1, bos=True)
    loaded = nbgpt.load(found.save(tmp_path / "c.safetensors"))
    for path in (loaded.classify(["calm"]), loaded.classify(["calm"], bos=True)):
        np.testing.assert_array_equal(list(path[0].probabilities.values()), found.predict_proba(["calm"])[0])
    other = loaded.classify(["calm"], bos=False)
    assert other[0].probabilities != loaded.classify(["calm"])[0].probabilities


# The base model


def test_the_base_may_move_along(classifier, base, tmp_path):
    """Both files in one folder, or the two folders together."""
    here = tmp_path / "here"
    here.mkdir()
    shutil.copyfile(base, here / base.name)
    path = classifier.save(tmp_path / "c.safetensors")
    moved = here / "c.safetensors"
    data = path.read_bytes()
    assert str(base).encode() not in data  # a path from the classifier's folder, which says nothing of this machine
    moved.write_bytes(data)
    assert nbgpt.load(moved).classify(["a"])[0].probabilities == nbgpt.load(path).classify(["a"])[0].probabilities


def test_the_base_may_be_found_by_its_name(classifier, base, tmp_path, monkeypatch):
    (tmp_path / "home" / "models").mkdir(parents=True)
    (tmp_path / "gone").mkdir()
    path = classifier.save(tmp_path / "gone" / "c.safetensors")
    lost = tmp_path / "elsewhere" / "deep" / "down"
    lost.mkdir(parents=True)
    shutil.move(path, lost / "c.safetensors")
    with pytest.raises(
        FormatError, match=r"c.safetensors is a classifier on small float32, which is not at .*: put it"
    ):
        nbgpt.load(lost / "c.safetensors")
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path / "home"))
    from nbgpt.conversion import registry

    shutil.copyfile(base, registry.models_folder() / registry.file_name("small", "float32"))
    assert registry.open_model(lost / "c.safetensors").head is not None


@pytest.fixture
def on_a_download(classifier, tmp_path, monkeypatch):
    """A classifier on a conversion of a downloaded model, and that conversion."""
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    repository, commit = tmp_path / "hf" / "hub" / "models--me--tiny", "c0ffee" * 6 + "0000"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    config = text_config(n_layer=2)
    write_folder(repository / "snapshots" / commit, config, random_params(config))
    weights = open_model("me/tiny", "float32")
    place = os.path.relpath(weights.path, tmp_path)
    of_head, n_features = classifier.head, config.n_embd * (2 if classifier.head.pooling == "both" else 1)
    rows = np.ones((2 + len(of_head.coefficients), n_features))
    head = replace(of_head, layer=1, mean=rows[0], scale=rows[1], coefficients=rows[2:])
    reference = BaseReference("me/tiny", "float32", place, fingerprint(weights), False, "trained on nothing")
    save_head(tmp_path / "c.safetensors", head, reference, "moods")
    return tmp_path / "c.safetensors", weights.path


def test_a_converted_base_is_in_use_when_its_classifier_is(on_a_download):
    path, base = on_a_download
    os.utime(base, (0, 0))
    assert open_model(path).head is not None
    assert base.stat().st_mtime > 1e9


def test_a_converted_base_that_was_pruned_is_made_again(on_a_download):
    path, base = on_a_download
    base.unlink()
    assert open_model(path).head is not None
    assert base.exists()


@pytest.fixture
def on_a_folder(labelled, tmp_path, monkeypatch):
    """A classifier on a conversion of a plain folder, that conversion, and the folder."""
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path / "home"))
    config, (texts, labels) = text_config(n_layer=2), labelled
    folder = write_folder(tmp_path / "mine" / "tiny", config, random_params(config))
    model = nbgpt.load(folder, dtype="float32", threads=1)
    found = nbgpt.train_classifier(model, texts[:48], labels[:48], layer=1)
    return found.save(tmp_path / "mine" / "c.safetensors"), model.weights.path, folder


def test_a_base_that_was_pruned_is_made_again_from_its_folder(on_a_folder):
    path, base, _ = on_a_folder
    before = nbgpt.load(path).classify(TEXTS)
    os.utime(base, (0, 0))
    assert main(["cache", "--prune"]) == 0
    assert not base.exists()
    again = nbgpt.load(path).classify(TEXTS)
    assert [one.probabilities for one in again] == [one.probabilities for one in before]
    assert base.exists()


def test_the_folder_of_a_pruned_base_may_move_along(on_a_folder, tmp_path):
    path, base, folder = on_a_folder
    base.unlink()
    folder.parent.rename(tmp_path / "yours")
    assert open_model(tmp_path / "yours" / path.name).head is not None


def test_the_folder_of_a_pruned_base_has_changed(on_a_folder):
    path, base, folder = on_a_folder
    base.unlink()
    config = text_config(n_layer=2)
    write_folder(folder, config, random_params(config, seed=1))
    with pytest.raises(FormatError, match=r"a classifier on tiny float32, and .*/mine/tiny is another model: train it"):
        open_model(path)


def test_the_folder_of_a_pruned_base_is_gone(on_a_folder):
    path, base, folder = on_a_folder
    base.unlink()
    shutil.rmtree(folder)
    with pytest.raises(FormatError, match=r"tiny float32, and neither that nor .*/mine/tiny, which it was"):
        open_model(path)


def test_a_pruned_base_whose_classifier_does_not_name_its_folder(on_a_folder):
    """As those that were saved by earlier versions."""
    path, base, folder = on_a_folder
    base.unlink()
    name, head, reference = read_head(path)
    save_head(path, head, replace(reference, source=""), name)
    with pytest.raises(FormatError, match=r"`python -m nbgpt info FOLDER --dtype float32` of what it was made from"):
        open_model(path)
    assert main(["info", str(folder), "--dtype", "float32"]) == 0
    assert open_model(path).head is not None


def test_another_base(classifier, tmp_path):
    path = classifier.save(tmp_path / "c.safetensors")
    config = text_config(n_layer=3)
    other = write_text_model(tmp_path / "small.safetensors", config, random_params(config, seed=1))
    data = path.read_bytes()
    lost = tmp_path / "a" / "b" / "c" / "d"
    lost.mkdir(parents=True)
    (lost / "c.safetensors").write_bytes(data)
    shutil.copyfile(other, lost / "small.safetensors")
    with pytest.raises(FormatError, match=r"a classifier on small float32, and .*small\.safetensors is another model"):
        nbgpt.load(lost / "c.safetensors")


def test_names_of_files(classifier, base):
    with pytest.raises(ValueError, match=r"moods is the name of the file; it must end in \.safetensors"):
        classifier.save("moods")
    with pytest.raises(ValueError, match="is no classifier, and would be lost: choose another name"):
        classifier.save(base)


def test_another_dtype_is_not_there(classifier, tmp_path):
    path = classifier.save(tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="holds float32 and you asked for int8"):
        nbgpt.load(path, dtype="int8")
