"""Lines that cannot be answered: named, left out, or the end of the run."""

import json

import pytest

LONG = "word " * 500


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join([*(f"number {n}" for n in range(70)), LONG, "the end", LONG]))
    return path


def test_skipping(run, file, random_file, line_model):
    code, out, err = run("score", file, "--model", random_file)
    assert code == 3
    assert [line.split("\t")[2] for line in out.splitlines()] == [*(f"number {n}" for n in range(70)), "the end"]
    assert float(out.splitlines()[-1].split("\t")[0]) == pytest.approx(line_model.score("the end").total, abs=1e-4)
    first, second, last = err.splitlines()
    assert first.startswith("nbgpt: line 71 is left out: text 'word word")
    assert second.startswith("nbgpt: line 73 is left out: ")
    assert last == "nbgpt: 2 of 73 lines were left out"


def test_embeddings_too(run, file, random_file):
    code, out, _ = run("embed", file, "--model", random_file)
    assert (code, [json.loads(line)["text"] for line in out.splitlines()][-2:]) == (3, ["number 69", "the end"])


def test_stopping(run, file, random_file):
    code, out, err = run("score", file, "--model", random_file, "--errors", "stop")
    assert (code, len(out.splitlines())) == (2, 70)
    assert err.startswith("nbgpt: line 71: text 'word word")
