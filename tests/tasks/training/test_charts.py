"""Pictures: valid SVG, with what they show at the right places."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from nbgpt.tasks.training.charts import Axis, line_chart, matrix_chart, unit_axis


def test_a_line_goes_through_its_points():
    x, y = Axis("x", 10, 1000, [10, 100, 1000], is_log=True), unit_axis("y", 0.5)
    svg = ElementTree.fromstring(line_chart("n", {"a<b": [(10, 0.5), (100, 0.75), (1000, 1.0)]}, x, y))
    [line] = svg.findall("polyline")
    places = [tuple(map(float, place.split(","))) for place in line.get("points").split()]
    lefts, tops = zip(*places, strict=True)
    assert lefts[1] - lefts[0] == pytest.approx(lefts[2] - lefts[1], abs=0.2)
    assert tops[0] - tops[1] == pytest.approx(tops[1] - tops[2], abs=0.2)
    assert (min(lefts), max(tops)) == (52, 256)
    assert [dot.find("title").text for dot in svg.findall("circle")][1] == "a<b: 100, 0.750"


def test_two_lines_have_a_legend():
    axis = unit_axis("p")
    svg = line_chart("n", {"a&b": [(0, 0), (1, 1)], "c": [(0, 1), (1, 0)]}, axis, axis, diagonal=True)
    ElementTree.fromstring(svg)
    assert re.findall(r'class="legend series(\d)"[^>]*>([^<]*)<', svg) == [("1", "a&amp;b"), ("2", "c")]
    assert svg.count("<polyline") == 3


@pytest.mark.parametrize(("low", "first"), [(0.0, 0.0), (0.93, 0.9), (0.71, 0.7), (0.42, 0.4), (1.0, 1.0)])
def test_an_axis_begins_below_the_lowest_value(low, first):
    axis = unit_axis("p", low)
    assert axis.low == pytest.approx(first)
    assert axis.ticks[0] == pytest.approx(axis.low)
    assert axis.ticks[-1] == 1
    assert len(axis.ticks) <= 8
    assert 0 <= axis.share(low) <= 1


@pytest.mark.parametrize("n", [2, 7, 20])
def test_a_matrix_has_a_cell_for_each_pair(n):
    counts = np.arange(n * n).reshape(n, n)
    svg = ElementTree.fromstring(matrix_chart("m", [f"<{i}>" for i in range(n)], counts))
    cells = svg.findall("rect")
    assert [int(cell.find("title").text.split(": ")[1].split(",")[0]) for cell in cells] == counts.ravel().tolist()
    shares = np.array([float(cell.get("fill-opacity")) for cell in cells]).reshape(n, n)
    np.testing.assert_allclose(shares, counts / counts.sum(axis=1, keepdims=True), atol=6e-4)


def test_a_label_without_texts():
    ElementTree.fromstring(matrix_chart("m", ["a", "b"], np.array([[0, 0], [1, 1]])))
