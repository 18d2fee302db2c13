"""Golden outputs: of the model that comes with nbgpt always, of official weights where there are any.

Official weights are looked for in $NBGPT_WEIGHTS, a folder with one folder for each name, and in the hub's cache; the
files of benchmarks in $NBGPT_DATA.
"""

import os
from pathlib import Path

import goldens
import numpy as np
import pytest
from goldens import CONTINUATIONS

import nbgpt
from nbgpt import paths
from nbgpt.analysis.hellaswag import HELLASWAG
from nbgpt.analysis.lambada import LAMBADA
from nbgpt.analysis.perplexity import perplexity
from nbgpt.conversion import hub, registry
from nbgpt.conversion.convert import convert
from nbgpt.engine.kv_cache import Sequence
from nbgpt.formats import open_checkpoint


def official_weights(name):
    """The folder of official weights; skips the test if there is none."""
    if "NBGPT_WEIGHTS" in os.environ and (folder := Path(os.environ["NBGPT_WEIGHTS"]) / name).is_dir():
        return folder
    if (folder := hub.locate(name)) is not None:
        return folder
    pytest.skip(f"no weights of {name}: set NBGPT_WEIGHTS to the folder that holds {name}/, or download them")


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Models by name and dtype; converted weights take gigabytes, so one at a time."""
    converted = tmp_path_factory.mktemp("goldens") / "converted.safetensors"
    loaded = {}

    def load(name, dtype):
        if (name, dtype) not in loaded:
            loaded.clear()
            if name == registry.EMBEDDED:
                path = paths.shipped(registry.file_name(name, dtype))
            else:
                path = converted
                convert(open_checkpoint(official_weights(name)), dtype, path, name=name)
            loaded[name, dtype] = nbgpt.load(path)
        return loaded[name, dtype]

    yield load
    converted.unlink(missing_ok=True)


def greedy(model, prompt, n_new):
    """The likeliest ids after those of a prompt."""
    sequence = Sequence()
    logits = model.engine.runner.append(sequence, prompt)
    ids = [int(logits.argmax())]
    while len(ids) < n_new:
        ids.append(int(model.engine.runner.decode([sequence], ids[-1:])[0].argmax()))
    model.engine.free(sequence)
    return ids


@pytest.mark.parametrize("golden", CONTINUATIONS, ids=lambda golden: f"{golden.model} {str(golden.prompt)[:24]!r}")
def test_continuation(load, golden):
    model = load(golden.model, golden.dtype)
    encode = model.tokenizer.encode
    prompt = golden.prompt if isinstance(golden.prompt, list) else model.encode(golden.prompt)
    n_new = len(golden.expected if isinstance(golden.expected, list) else encode(golden.expected))
    ids = greedy(model, prompt, n_new)
    assert (ids if isinstance(golden.expected, list) else model.tokenizer.decode(ids)) == golden.expected
    if isinstance(golden.prompt, str):
        completion = model.generate(golden.prompt, max_tokens=n_new, greedy=True)
        assert completion.tokens == ids


def check(logits, expected, actual):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(logits).max())


@pytest.mark.parametrize("golden", goldens.LOGITS, ids=lambda golden: str(golden.ids))
def test_logits(load, golden):
    logits = load("gpt2", "float32").logits(golden.ids)
    check(logits, golden.expected, logits[golden.position, : len(golden.expected)])


def test_all_logits_together(load):
    ids, mean = goldens.MEAN_OF_LOGITS
    logits = load("gpt2", "float32").logits(ids)
    check(logits, mean, logits.mean(dtype=np.float64))


def test_largest_logits(load):
    ids, largest = goldens.LARGEST_LOGITS
    assert load("gpt2", "float32").logits(ids).argmax(axis=-1).tolist() == largest


def test_mean_nll(load):
    ids, expected = goldens.MEAN_NLL
    log_probabilities = goldens.log_softmax(load("gpt2", "float32").logits(ids))
    nll = -np.mean([log_probabilities[i, token] for i, token in enumerate(ids[1:])])
    assert nll == pytest.approx(expected, abs=1e-3)  # as 1e-5 of the largest logit


# Benchmarks

MEASURES = {"lambada": LAMBADA, **{f"hellaswag {protocol}": measure for protocol, measure in HELLASWAG.items()}}


def data_file(name):
    """The text of a benchmark's file; skips the test if there is none."""
    path = Path(os.environ.get("NBGPT_DATA", ".")) / name
    if "NBGPT_DATA" not in os.environ or not path.is_file():
        pytest.skip(f"no {name}: set NBGPT_DATA to the folder that holds it")
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("golden", goldens.BENCHMARKS, ids=lambda golden: golden.name)
def test_benchmark(load, golden):
    text, measure = data_file(golden.file), MEASURES[golden.name]
    model = load("gpt2", "float32")
    found = measure.run(model.engine, model.tokenizer, measure.read(text, golden.file), bos=False).estimates
    for name, expected in golden.expected.items():
        assert found[name].value == pytest.approx(expected, abs=golden.tolerance[name])


def test_wikitext(load):
    name, expected, _ = goldens.WIKITEXT
    text = goldens.wikitext(data_file(name))
    model = load("gpt2", "float32")
    found = perplexity(model.engine, model.tokenizer.encode(text), "strided", 1024, 1024)
    assert found.perplexity == pytest.approx(expected, abs=0.05)
