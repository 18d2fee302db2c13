"""Which file a name stands for, and conversions that are made once."""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import reciter, text_config, write_folder, write_text_model
from models import config_of, random_params, write_native

import nbgpt
from nbgpt import paths
from nbgpt.conversion import registry
from nbgpt.conversion.registry import ModelNotFoundError, known, model_name, open_model
from nbgpt.formats import FormatError
from nbgpt.weights import DTYPES, load, tokenizer_of

CONFIG, PARAMS = reciter("Hello")


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """A user with no models and an empty cache of the hub."""
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def keep(home, name, dtype):
    path = home / "models" / f"{name}-{dtype}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text_model(path, CONFIG, PARAMS, dtype)


def not_found(model, dtype=None):
    with pytest.raises(ModelNotFoundError) as caught:
        open_model(model, dtype)
    return str(caught.value)


# Native files


@pytest.mark.parametrize("name", ["m.safetensors", "m.nbgpt", "m"])
def test_a_file(tmp_path, name):
    path = write_text_model(tmp_path / name, CONFIG, PARAMS, "float16")
    for model in (path, str(path)):
        assert (open_model(model).path, open_model(model).dtype) == (path, "float16")
    assert open_model(path, "float16").path == path


def test_a_file_with_another_dtype_names_convert(tmp_path):
    path = write_text_model(tmp_path / "m.safetensors", CONFIG, PARAMS)
    with pytest.raises(ValueError, match=r"m.safetensors holds float32 and you asked for int4: .* convert FOLDER"):
        open_model(path, "int4")


def test_a_name(own_home):
    files = {dtype: keep(own_home, "mine", dtype) for dtype in ("float32", "int8", "int4")}
    assert open_model("mine").path == files["int8"]
    assert open_model("mine", "float32").path == files["float32"]
    with pytest.raises(ValueError, match=r"holds int8 and you asked for float16: .* convert FOLDER --dtype float16"):
        open_model("mine", "float16")
    files["int8"].unlink()
    assert open_model("mine").path in files.values()


def test_official_names_and_repositories_that_were_converted(own_home):
    for name in ("gpt2", "me/tiny"):
        path = keep(own_home, name.replace("/", "--"), "int8")
        assert open_model(name).path == path


def test_the_embedded_model(own_home, monkeypatch):
    path = keep(own_home, "story-34m", "int8")
    assert open_model().path == open_model("story-34m").path == path
    shipped = own_home.parent / "shipped"
    shutil.move(own_home / "models", shipped)
    monkeypatch.setattr(paths, "shipped", lambda name: shipped / name)
    assert open_model().path == shipped / path.name
    (shipped / path.name).unlink()
    assert not_found(None) == "the embedded model story-34m is missing: install nbgpt again"


def test_models_are_kept_in_the_home(own_home, monkeypatch):
    assert registry.models_folder() == own_home / "models"
    monkeypatch.delenv("NBGPT_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_home))
    assert registry.models_folder() == own_home / "nbgpt" / "models"


# Names that stand for nothing


@pytest.mark.parametrize("name", ["gpt2", "gpt2-xl", "distilgpt2", "me/tiny", "openai-community/gpt2"])
def test_what_can_be_downloaded(name):
    assert not_found(name) == f"{name} is not on this machine: run `python -m nbgpt download {name}`"


@pytest.mark.parametrize(
    ("name", "near"),
    [("gpt2-mediun", "gpt2-medium"), ("GPT2-XL", "gpt2-xl"), ("stroy-34m", "story-34m"), ("distil-gpt2", "distilgpt2")],
)
def test_misspelt_names(name, near):
    assert near in not_found(name).partition(f"{name!r}; did you mean ")[2].rstrip("?").split(" or ")


def test_names_that_are_near_to_none(own_home):
    keep(own_home, "me--tiny", "float32")
    keep(own_home, "mine", "int8")
    names = "distilgpt2, gpt2, gpt2-large, gpt2-medium, gpt2-xl, me/tiny, mine, story-34m"
    assert ", ".join(known()) == names
    assert not_found("qwertyuiop").endswith(f"called 'qwertyuiop'; known are {names}")


@pytest.mark.parametrize("name", ["weights/none.safetensors", "./none", "/no/such/folder", "a/b/c", "x/none.gguf", "~"])
def test_paths_of_nothing_are_no_repositories(name):
    assert "download" not in not_found(name)


def test_an_unknown_dtype():
    with pytest.raises(ValueError, match="dtype is 'int3'; choose one of float32, float16, bfloat16, int8, int4"):
        open_model("gpt2", "int3")


# Official weights


@pytest.fixture
def folder(tmp_path):
    folder = write_folder(tmp_path / "weights of mine", CONFIG, PARAMS)
    (folder / "model.safetensors").chmod(0o644)
    return folder


def conversions(home):
    return sorted((home / "converted").glob("*"))


def test_a_folder_is_converted_once(own_home, folder):
    first = open_model(folder)
    assert (first.dtype, first.metadata["name"], first.config) == ("int8", "weights of mine", CONFIG)
    before = first.path.stat()
    assert open_model(str(folder)).path == first.path
    assert first.path.stat().st_ino == before.st_ino
    assert conversions(own_home) == [first.path]


def test_each_dtype_has_its_conversion(own_home, folder):
    opened = [open_model(folder, dtype) for dtype in DTYPES]
    assert [weights.dtype for weights in opened] == list(DTYPES)
    assert conversions(own_home) == sorted(weights.path for weights in opened)


def test_a_folder_that_has_changed_is_converted_again(own_home, folder):
    other = write_folder(own_home.parent / "other", CONFIG, PARAMS)
    kept = {open_model(other).path, open_model(folder, "int4").path}
    first = open_model(folder).path
    os.utime(folder / "model.safetensors", ns=(0, 0))
    second = open_model(folder).path
    assert conversions(own_home) == sorted({second, *kept})
    assert first != second
    write_folder(folder, replace(CONFIG, activation="relu"), PARAMS)
    os.utime(folder / "model.safetensors", ns=(0, 0))
    assert open_model(folder).config.activation == "relu"


def test_a_damaged_conversion_is_made_again(own_home, folder):
    path = open_model(folder).path
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert open_model(folder).path == path
    assert path.read_bytes() == whole


def test_a_file_of_official_weights(folder):
    weights = open_model(folder / "model.safetensors", "float32")
    assert (weights.dtype, weights.metadata["name"]) == ("float32", "weights of mine")


def test_weights_that_were_downloaded(own_home, folder):
    """As huggingface_hub leaves them; `download` need not have been ours."""
    repository = own_home.parent / "hf" / "hub" / "models--me--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee" * 6 + "0000")
    shutil.move(folder, repository / "snapshots" / ("c0ffee" * 6 + "0000"))
    weights = open_model("me/tiny", "float32")
    assert (weights.dtype, weights.metadata["name"]) == ("float32", "me/tiny")
    path = keep(own_home, "me--tiny", "int8")
    assert open_model("me/tiny").path == path


def test_names_of_models(tmp_path):
    (tmp_path / "model.folder").mkdir()
    assert model_name(tmp_path / "model.folder") == "model.folder"
    assert model_name(tmp_path / "some" / "model.safetensors") == "some"
    assert model_name(tmp_path / "some" / "pytorch_model.bin.index.json") == "some"
    assert model_name(tmp_path / "some" / "mine.gguf") == "mine"


# What is wrong with a file is said of that file


def test_a_native_file_that_is_cut_short(tmp_path):
    path = write_text_model(tmp_path / "m.safetensors", CONFIG, PARAMS)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"m.safetensors: tensors end at byte \d+, the file at \d+; cut short"):
        open_model(path)


def test_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(FormatError, match=r"notes.txt: expected a folder, or a file that ends in .safetensors"):
        open_model(tmp_path / "notes.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FormatError, match=r"looked for model.safetensors, .*; found none of them"):
        open_model(tmp_path / "folder")


def test_folders_of_one_name_do_not_share_a_conversion(tmp_path):
    folders = [write_folder(tmp_path / str(n) / "gpt2", text_config(), random_params(text_config(), n)) for n in (0, 1)]
    first, second = (open_model(folder, "float32") for folder in folders)
    assert first.path != second.path
    assert not np.array_equal(first.block, second.block)


# What a conversion is made of


def rewrite(path, before, after):
    """Change a file as an editor might: size and time stay."""
    stat, text = path.stat(), path.read_text()
    assert before in text
    assert len(before) == len(after)
    path.write_text(text.replace(before, after))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_label_that_was_corrected(folder):
    config = replace(CONFIG, n_labels=2)
    write_folder(folder, config, {**PARAMS, "score.weight": np.ones((2, config.n_embd), np.float32)})
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "id2label": {"0": "goood", "1": "bad"}}))
    assert json.loads(open_model(folder).metadata["labels"]) == ["goood", "bad"]
    rewrite(folder / "config.json", '"goood"', '"good" ')
    assert json.loads(open_model(folder).metadata["labels"]) == ["good", "bad"]


def test_an_end_of_text_that_was_corrected(folder):
    (folder / "generation_config.json").write_text('{"eos_token_id": 5}')
    assert open_model(folder).metadata["eos_ids"] == "[5]"
    rewrite(folder / "generation_config.json", "5", "7")
    assert open_model(folder).metadata["eos_ids"] == "[7]"


def test_a_vocabulary_that_comes_later(folder):
    (folder / "added_tokens.json").write_text("{}")
    first = open_model(folder).path
    (folder / "special_tokens_map.json").write_text("{}")
    assert open_model(folder).path != first


def test_another_version_of_the_converter(folder, monkeypatch):
    first = open_model(folder).path
    monkeypatch.setattr("nbgpt.conversion.convert.VERSION", 99)
    assert open_model(folder).path != first


# Vocabularies


def gpt2_sized(folder, n_vocab=50257):
    config = config_of(n_vocab=n_vocab, n_embd=8, n_head=1, n_layer=1, n_ctx=8)
    write_folder(folder, config, random_params(config))
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    return folder


@pytest.mark.parametrize("n_vocab", [50257, 50304])
def test_gpt2s_own_vocabulary_is_taken_and_named(tmp_path, capsys, n_vocab):
    folder = gpt2_sized(tmp_path / "bare", n_vocab)
    said = "nbgpt: bare has the vocabulary GPT-2's own, as there is none beside the weights\n"
    for _ in range(2):  # converted, and kept
        assert open_model(folder).tokenizer is None
        assert said in capsys.readouterr().err


def test_the_vocabulary_is_named_by_each_load_of_a_folder(folder, capsys):
    for _ in range(2):  # converted, and kept
        open_model(folder)
        assert "nbgpt: weights of mine has the vocabulary of vocab.json and merges.txt\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("n_vocab", "fields", "reason"),
    [
        (50256, {}, "an embedding of 50256 rows is not GPT-2's (50257)"),
        (51200, {}, "an embedding of 51200 rows is not GPT-2's (50257)"),
        (50257, {"tokenizer_class": "BertTokenizer"}, "config.json names 'BertTokenizer'"),
    ],
)
def test_other_models_without_a_vocabulary_are_refused(own_home, n_vocab, fields, reason):
    folder = gpt2_sized(own_home.parent / "bare", n_vocab)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    with pytest.raises(FormatError) as caught:
        open_model(folder)
    assert f"{folder}: no vocabulary beside the weights, and {reason}; put its tokenizer.json beside" in str(
        caught.value
    )
    assert not (own_home / "converted").exists() or not conversions(own_home)


def test_a_file_without_a_vocabulary_makes_no_text(tmp_path):
    path = write_native(tmp_path / "ids.safetensors", random_params(config_of()), config_of(), "float32")
    cause = "no vocabulary in it, and an embedding of 61 rows is not GPT-2's"
    with pytest.raises(FormatError, match=cause):
        tokenizer_of(load(path))
    for ask in ("generate", "score", "stream"):  # not of GPT-2's end of text, 50256, which it does not have
        with pytest.raises(FormatError, match=cause), nbgpt.load(path) as model:
            getattr(model, ask)([1, 2])


# Places


def test_a_user_without_a_home_has_the_embedded_model(folder, monkeypatch):
    for name in ("NBGPT_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user whom the system does not know
    assert open_model().path == paths.shipped("story-34m-int8.safetensors")
    assert "story-34m" in known()
    with pytest.raises(ValueError, match="HOME is not set and names no folder: set NBGPT_HOME to one"):
        open_model(folder)


@pytest.mark.parametrize("mode", [0o000, 0o500], ids=["not entered", "read-only"])
def test_a_home_of_another_user(own_home, folder, mode, monkeypatch):
    own_home.mkdir()
    monkeypatch.setenv("HF_HOME", str(own_home / "hf"))
    with unprivileged(own_home, mode):
        assert open_model().path == paths.shipped("story-34m-int8.safetensors")
        assert not_found("gpt2") == "gpt2 is not on this machine: run `python -m nbgpt download gpt2`"
        assert not_found("gpt3").startswith("no file, folder or model is called 'gpt3'; did you mean gpt2")
        with pytest.raises(PermissionError) as caught:
            open_model(folder)
    assert str(caught.value) == (
        f"{own_home}/converted: Permission denied, and converted weights are kept there: "
        "set NBGPT_HOME to a folder that you can write"
    )


def test_a_conversion_in_a_read_only_home_is_used(own_home, folder):
    path = open_model(folder).path
    with unprivileged(own_home / "converted", 0o500):
        assert open_model(folder).path == path
        with pytest.raises(PermissionError, match=r"/converted cannot be written, .*: set NBGPT_HOME to a folder"):
            open_model(folder, "int4")


@contextmanager
def unprivileged(home, mode):
    """A user without rights on a folder; the tests may run as one with all of them."""
    above = [path for path in home.parents if path.is_relative_to(Path(tempfile.gettempdir()))]
    before = {path: path.stat().st_mode for path in (home, *above)}
    user = os.geteuid()
    for path in above:
        path.chmod(path.stat().st_mode | 0o055)
    if user == 0:
        os.chown(home, 65534, -1)
        os.seteuid(65534)
    home.chmod(mode)
    try:
        yield
    finally:
        os.seteuid(user)
        for path, bits in before.items():
            path.chmod(bits)
