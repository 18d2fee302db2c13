"""Figures as text and as JSON."""

import json
import math

import pytest

from nbgpt.analysis.estimate import Estimate
from nbgpt.cli.measures import plain, shown, write_json, write_lines


def test_columns(capsys):
    write_lines([("a", "1"), ("bc", "2")])
    write_lines([("a name that is long", "1"), ("b", "2")])
    out = capsys.readouterr().out
    assert out == f"a{' ' * 15}1\nbc{' ' * 14}2\na name that is long 1\nb{' ' * 19}2\n"


def test_json(capsys):
    write_json({"a": Estimate(0.5, math.nan), "b": {99.9: math.inf, 1: -1.5}, "c": "é", "d": None})
    line = '{"a": {"value": 0.5, "standard_error": null}, "b": {"99.9": null, "1": -1.5}, "c": "é", "d": null}\n'
    assert capsys.readouterr().out == line
    assert json.loads(line)["b"]["1"] == -1.5


@pytest.mark.parametrize("value", [1, 0.5, "a", None, True])
def test_what_json_has_stays(value):
    assert plain(value) is value


def test_shown():
    assert shown(Estimate(0.32561, 0.00653)) == "0.3256 +/- 0.0065"
    assert shown(Estimate(0.967, 0.0011), 2, 100, " %") == "96.70 +/- 0.11 %"
