"""The pictures: an SVG file that stands alone, and where its points are."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from nbgpt.analysis.curves import N_BINS, Curves
from nbgpt.analysis.estimate import Estimate
from nbgpt.analysis.plot import svg

SVG = "{http://www.w3.org/2000/svg}"


def curves_of(losses, errors=None, counts=None):
    errors = errors or [0.1] * len(losses)
    counts = np.full(N_BINS, 100) if counts is None else counts
    middles = (np.arange(N_BINS) + 0.5) / N_BINS
    stated = np.where(counts > 0, middles, np.nan)
    return Curves(
        1000,
        2 ** np.arange(len(losses) + 1),
        [Estimate(*pair) for pair in zip(losses, errors, strict=True)],
        stated,
        stated**2,
        counts,
        Estimate(0.5, 0.01),
        Estimate(0.25, 0.01),
    )


def drawn(curves, model="gpt2 int8"):
    return ElementTree.fromstring(svg(curves, model))


def points(root, number):
    line = root.findall(f"{SVG}polyline")[number]
    return np.array([[float(number) for number in pair.split(",")] for pair in line.get("points").split()])


def test_it_stands_alone():
    text = svg(curves_of([5.0, 4.0, 3.5]), "gpt2 int8")
    assert set(re.findall(r"https?://[^\"' ]*", text)) == {"http://www.w3.org/2000/svg"}
    assert "href" not in text
    assert "script" not in text
    assert svg(curves_of([5.0, 4.0, 3.5]), "gpt2 int8") == text


def test_loss():
    """Higher losses stand higher; each doubling of the context is as wide."""
    found = points(drawn(curves_of([5.0, 4.0, 3.0, 3.5])), 0)
    assert len(found) == 4
    assert np.argsort(found[:, 1]).tolist() == [0, 1, 3, 2]
    steps = np.diff(found[1:, 0])
    assert steps.max() - steps.min() < 0.15 * steps.max()  # the middles of bins are rounded
    gaps = np.diff(found[:3, 1])
    assert gaps[0] == pytest.approx(gaps[1], abs=0.2)


def test_calibration():
    counts = np.full(N_BINS, 100)
    counts[7] = 0
    root = drawn(curves_of([5.0, 4.0], counts=counts))
    found = points(root, 1)
    assert len(found) == N_BINS - 1  # an empty bin has no point
    (ends,) = root.findall(f"{SVG}line[@class='perfect']")
    x = np.array([float(ends.get(name)) for name in ("x1", "x2")])
    y = np.array([float(ends.get(name)) for name in ("y1", "y2")])
    stated = (found[:, 0] - x[0]) / (x[1] - x[0])
    happened = (found[:, 1] - y[0]) / (y[1] - y[0])
    np.testing.assert_allclose(happened, stated**2, atol=0.002)
    (mark,) = root.findall(f"{SVG}circle[@class='mark']")
    assert (float(mark.get("cx")) - x[0]) / (x[1] - x[0]) == pytest.approx(0.5, abs=0.001)
    assert (float(mark.get("cy")) - y[0]) / (y[1] - y[0]) == pytest.approx(0.25, abs=0.001)


def test_a_bin_of_one_token_has_no_error():
    errors = drawn(curves_of([5.0, 4.0], [float("nan"), 0.1])).findall(f"{SVG}line[@class='error']")
    assert len(errors) == 1 + N_BINS


@pytest.mark.parametrize("losses", [[3.0], [3.0, 3.0], [0.0, 12.34], [1e-9, 2e-9], [1e4, 2e4]])
def test_every_loss_has_a_scale(losses):
    root = drawn(curves_of(losses))
    found = points(root, 0)
    assert np.isfinite(found).all()
    _, _, width, height = map(float, root.get("viewBox").split())
    assert (found > 0).all()
    assert (found < [width / 2, height]).all()


def test_names_are_text():
    texts = [one.text for one in drawn(curves_of([5.0, 4.0]), "<b> & int8").iter(f"{SVG}text")]
    assert "<b> & int8: loss by position, 1000 tokens" in texts
    assert any("0.500 stated, 0.250 came" in text for text in texts)
