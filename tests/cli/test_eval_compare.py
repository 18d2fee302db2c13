"""`eval compare`, against the function."""

import json

import pytest
from folders import TOKENIZER, text_config, write_folder, write_text_model
from models import random_params

import nbgpt
from nbgpt.analysis.comparison import compare

CONFIG = text_config(n_ctx=60)
TEXT = b"It was a dark and stormy night.\n" * 30


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    return [
        str(write_text_model(folder / f"{dtype}.safetensors", CONFIG, random_params(CONFIG), dtype))
        for dtype in ("float32", "int8")
    ]


def test_compare(run, models, tmp_path):
    (tmp_path / "text.txt").write_bytes(TEXT)
    code, out, err = run("eval", "compare", *models, tmp_path / "text.txt")
    assert (code, err) == (0, "")
    a, b = map(nbgpt.load, models)
    found = compare(a.engine, b.engine, TOKENIZER.encode(TEXT.decode()))
    lines = dict(line.split("  ", 1) for line in out.splitlines() if "  " in line)
    assert out.splitlines()[:2] == ["A                float32 float32", "B                int8 int8"]
    assert (
        f"mean KLD         {found.divergence.value:.6f} +/- {found.divergence.standard_error:.6f} nats a token" in out
    )
    assert lines["B / A"].strip() == f"{found.ratio.value:.5f} +/- {found.ratio.standard_error:.5f}"
    same = found.same_top
    assert f"{100 * same.value:.3f} +/- {100 * same.standard_error:.3f} %" in out
    assert [line.split("  ")[0] for line in out.splitlines()[-13:]] == [
        *(
            "maximum",
            "99.9 %",
            "99 %",
            "95 %",
            "90 %",
            "75 %",
            "median",
            "25 %",
            "10 %",
            "5 %",
            "1 %",
            "0.1 %",
            "minimum",
        )
    ]
    data = json.loads(run("eval", "compare", *models, "-", "--json", stdin=TEXT)[1])
    assert data["divergence"] == vars(found.divergence)
    assert data["ratio"] == vars(found.ratio)
    assert data["divergence_percentiles"]["99.9"] == found.divergence_percentiles[99.9]
    assert (data["a"], data["b"], data["window"], data["n_scored"]) == (
        *("float32 float32", "int8 int8"),
        *(60, found.n_scored),
    )


def test_dtypes(run, tmp_path):
    """One checkpoint, converted to two types."""
    folder = write_folder(tmp_path / "model", CONFIG, random_params(CONFIG))
    dtypes = ["--dtype-a", "float32", "--dtype-b", "int8"]
    code, out, _ = run("eval", "compare", folder, folder, "-", *dtypes, "--window", 40, "--no-bos", stdin=TEXT)
    assert code == 0
    assert "A                model float32\nB                model int8\n" in out
    assert "window           40\n" in out


def test_other_vocabularies(fails, models, tmp_path):
    """Of one size, but the words differ."""
    message = "story-34m and float32 have different vocabularies; only models of one can be compared"
    code, line = fails("eval", "compare", "story-34m", models[0], "-", stdin=TEXT)
    assert (code, line) == (2, message)


def test_bad_requests(fails, models):
    assert fails("eval", "compare", *models, "-", stdin=b"short")[1].endswith("choose a longer one")
    assert fails("eval", "compare", *models, "-", "--window", 61, stdin=TEXT)[1].startswith("window is 61; it must be")
    assert (
        "holds int8 and you asked for int4"
        in fails("eval", "compare", *models, "-", "--dtype-b", "int4", stdin=TEXT)[1]
    )
