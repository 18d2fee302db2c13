"""`classify`, against the method of a model."""

import json

import pytest
from folders import write_random_model

import nbgpt


@pytest.fixture(scope="module", params=[False, True], ids=["one label", "any number"])
def fine_tune(request, folder):
    return write_random_model(folder / f"{request.param}.safetensors", n_labels=3, multi_label=request.param)


def test_lines(run, fine_tune, lines, tmp_path):
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    model = nbgpt.load(fine_tune)
    expected = model.classify(lines)
    code, out, err = run("classify", fine_tune, tmp_path / "lines.txt")
    assert (code, err) == (0, "")
    for row, line, one in zip(out.split("\n"), lines, expected, strict=False):
        label, odds, text = row.split("\t")
        assert text == line
        if model.config.multi_label:
            chosen = {name: p for name, p in one.probabilities.items() if p > 0.5}
            assert (label, odds) == (",".join(chosen), ",".join(f"{p:.4f}" for p in chosen.values()))
        else:
            assert (label, odds) == (one.label, f"{one.probabilities[one.label]:.4f}")
    assert out.count("\n") == len(lines)


def test_json_from_standard_input(run, fine_tune, lines):
    code, out, _ = run("classify", fine_tune, "--json", stdin=("\r\n".join(lines) + "\r\n").encode())
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    for record, line, one in zip(records, lines, nbgpt.load(fine_tune).classify(lines), strict=True):
        assert record == {"text": line, "label": one.label, "probabilities": one.probabilities}
    assert run("classify", fine_tune, "-", stdin=b"") == (0, "", "")


def test_models_without_labels(fails, random_file):
    code, line = fails("classify", random_file, stdin=b"a\n")
    assert code == 2
    assert "has no classification head" in line


def test_no_such_model(fails):
    code, line = fails("classify", "nobody", stdin=b"a\n")
    assert code == 2
    assert line.startswith("no file, folder or model is called 'nobody'")
