"""What the page says about the residual stream."""

import numpy as np
from packing import unpacked

from nbgpt.analysis.explain import stream
from nbgpt.analysis.explain.stream import shown_channels, stream_data


def test_the_way_is_made_of_the_trace(explained):
    way = stream_data(explained)["way"]
    assert way["first"] == 0
    np.testing.assert_allclose(unpacked(way["stream"]), explained.stream[:, :, way["channels"]], rtol=2.5e-4)
    gains = explained.weights.floats("h.1.ln_2.weight")[way["channels"]]
    np.testing.assert_allclose(unpacked(way["gains"])[3], gains, rtol=2.5e-4)
    norms = np.linalg.norm(explained.head_outputs(1), axis=-1)
    np.testing.assert_allclose(unpacked(way["head_norms"])[1], norms, rtol=2.5e-4)
    np.testing.assert_allclose(unpacked(way["active"]), (explained.activations > 0).mean(axis=-1), rtol=2.5e-4)
    order = np.argsort(-explained.activations, axis=-1, kind="stable")[..., :6]
    largest = np.take_along_axis(explained.activations, order, axis=-1)
    np.testing.assert_allclose(unpacked(way["neuron_values"]), largest, rtol=2.5e-4)
    named = np.take_along_axis(explained.activations, unpacked(way["neurons"]).astype(np.int64), axis=-1)
    np.testing.assert_array_equal(named, largest)


def test_a_long_text_has_the_way_of_its_last_tokens(explained, monkeypatch):
    monkeypatch.setattr(stream, "_NUMBERS", 7 * 5 * 48)
    way = stream_data(explained)["way"]
    assert way["first"] == len(explained.ids) - 7
    assert way["stream"]["shape"] == [5, 7, 48]


def test_channels(explained, monkeypatch):
    assert shown_channels(explained).tolist() == list(range(48))
    monkeypatch.setattr(stream, "N_CHANNELS", 5)
    largest = int(np.abs(explained.stream[-1]).mean(axis=0).argmax())
    channels = shown_channels(explained).tolist()
    assert len(channels) == 5
    assert largest in channels
    assert channels == sorted(channels)
