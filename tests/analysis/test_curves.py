"""Loss by position and calibration, counted one probability at a time in float64."""

import numpy as np
import pytest
import reference
from models import config_of, open_model, random_params, write_native

from nbgpt.analysis.curves import N_BINS, curves

N_CTX, N_VOCAB = 32, 61
CONFIG = config_of(n_ctx=N_CTX, n_vocab=N_VOCAB)
PARAMS = random_params(CONFIG)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return open_model(write_native(tmp_path_factory.mktemp("models") / "m.safetensors", PARAMS, CONFIG, "float32"))


@pytest.fixture
def text(rng):
    return rng.integers(0, N_VOCAB, 150).tolist()


def events(ids, window, bos):
    """(tokens before, probability, did it come, is it the likeliest) of every id at every scored position."""
    for start in range(0, len(ids), window):
        part = ids[start : start + window]
        if len(part) < 2:
            continue
        read = part if bos is None else [bos, *part[1:]]
        p = reference.softmax(reference.gpt2(np.array(read), PARAMS, CONFIG))
        for j in range(len(part) - 1):
            for token in range(N_VOCAB):
                yield j + 1, p[j][token], part[j + 1] == token, p[j].argmax() == token


@pytest.mark.parametrize(("window", "bos"), [(None, None), (20, 60), (149, None)])
def test_curves(model, text, window, bos):
    if window == 149:  # a last window of one token scores nothing
        window, text = 32, text[:129]
    found = curves(model, text, window, bos)
    window = window or N_CTX
    every = list(events(text, window, bos))
    came = [(position, p) for position, p, happened, _ in every if happened]
    assert found.n_scored == len(came)
    assert found.positions[0] == 1
    assert found.positions[-1] == window
    assert sum(found.counts) == len(every)
    for i, estimate in enumerate(found.nll):
        low, high = found.positions[i : i + 2]
        expected = [-np.log(p) for position, p in came if low <= position < high]
        assert estimate.value == pytest.approx(np.mean(expected), rel=1e-4)
        assert estimate.standard_error == pytest.approx(np.std(expected, ddof=1) / len(expected) ** 0.5, rel=1e-3)
    for i in range(N_BINS):
        inside = [(p, happened) for _, p, happened, _ in every if i / N_BINS <= p < (i + 1) / N_BINS]
        assert found.counts[i] == len(inside)
        if inside:
            assert found.stated[i] == pytest.approx(np.mean([p for p, _ in inside]), rel=1e-3)
            assert found.happened[i] == pytest.approx(np.mean([happened for _, happened in inside]))
        else:
            assert np.isnan(found.stated[i])
    likeliest = [(p, happened) for _, p, happened, is_top in every if is_top]
    assert found.confidence.value == pytest.approx(np.mean([p for p, _ in likeliest]), rel=1e-4)
    assert found.accuracy.value == pytest.approx(np.mean([happened for _, happened in likeliest]))


def test_positions_double(model, text):
    assert curves(model, text).positions.tolist() == [1, 2, 4, 5, 8, 11, 16, 22, 32]


def test_progress(model, text):
    calls = []
    curves(model, text, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(n, 5) for n in range(1, 6)]


def test_bad_requests(model, text):
    with pytest.raises(ValueError, match="window is 33; it must be from 2 to 32, the context of this model"):
        curves(model, text, 33)
    with pytest.raises(ValueError, match="the text has 1 tokens; this needs at least 2"):
        curves(model, text[:1])
