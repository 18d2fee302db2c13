"""Models and fixtures that the tests of the subcommands share."""

import io
import re
import sys

import numpy as np
import pytest
from folders import TOKENIZER, ballot, reciter, text_config, write_folder, write_random_model, write_text_model
from models import random_params

import nbgpt
from nbgpt.backend.kernel_cache import load_kernels
from nbgpt.cli.main import main


@pytest.fixture(scope="session", autouse=True)
def kernels(home):
    """Compiled before any test: compiling writes a line to standard error."""
    for dtype in ("float32", "int8"):
        load_kernels(dtype)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def recital(folder):
    """Writes RECITED and ends it."""
    return str(write_text_model(folder / "recital.safetensors", *reciter()))


@pytest.fixture(scope="module")
def chatter(folder):
    """Writes words and lines without end, another text for every seed."""
    likely = [TOKENIZER.encode(token)[0] for token in (" the", " and", "\n")]
    logits = np.full(TOKENIZER.n_vocab, -50, np.float32)
    logits[likely] = 1, 0.5, 0.5
    return str(write_text_model(folder / "chatter.safetensors", *ballot(logits, n_layer=1), bos=True))


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs a command in this process -> exit code, standard output, standard error."""

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse
            code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def fails(run):
    """Runs a command that must fail -> exit code, the one line on standard error."""

    def fails(*arguments, **options):
        code, out, err = run(*arguments, **options)
        assert out == ""
        assert re.fullmatch(r"nbgpt: [^\n]+\n", err)
        return code, err[len("nbgpt: ") : -1]

    return fails


@pytest.fixture
def official(tmp_path):
    """A folder of official weights, and what to do to it."""
    config = text_config()

    def official(name="model", params=None, files=None):
        folder = write_folder(tmp_path / name, config, random_params(config) | (params or {}))
        for file, data in (files or {}).items():
            if file in ("pytorch_model.bin", "m.gguf"):
                (folder / "model.safetensors").unlink()
            (folder / file).write_bytes(data)
        return folder

    return official


# `score` and `embed` read files line by line


@pytest.fixture(scope="session")
def lines():
    """Lines of a file, more than one batch of them."""
    return ["It was a dark and stormy night.", "", "a", "Naïve café 😀", *(f"number {n}" for n in range(100))]


@pytest.fixture(scope="module")
def random_file(folder):
    return write_random_model(folder / "random.safetensors")


@pytest.fixture(scope="module")
def line_model(random_file):
    return nbgpt.load(random_file)


@pytest.fixture
def run_on_lines(random_file, lines, tmp_path, capsys):
    """Runs a command on a file of the lines -> the lines that it writes."""
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run(*arguments, source=tmp_path / "lines.txt"):
        assert main([*map(str, arguments), str(source), "--model", str(random_file)]) == 0
        out = capsys.readouterr().out
        assert out[-1:] in ("\n", "")
        return out.split("\n")[:-1]

    return run
