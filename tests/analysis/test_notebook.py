"""The summary of a trace that a notebook shows."""

import numpy as np
from browser import HOSTILE

from nbgpt.analysis.notebook import summary


def test_what_it_says():
    html = summary(["Once", " upon"], np.array([np.nan, 6.0]), np.array([0, 17]), [(" a", 0.75), (" the", 0.125)])
    assert "<code title='nothing before it'>Once</code>" in html
    assert "<code title='6.0 bits, number 17 of the predictions' style='background:rgba(214,116,0,0.30)'>" in html
    assert "2 tokens; 6.00 bits a token" in html
    assert html.index("75.0%") < html.index("12.5%")


def test_one_token():
    html = summary(["a"], np.array([np.nan]), np.array([0]), [("b", 1.0)])
    assert "1 token;" in html
    assert "nan" not in html


def test_hostile_text_stays_text():
    html = summary([HOSTILE], np.array([np.nan]), np.array([0]), [(HOSTILE, 1.0)])
    assert "<script" not in html
    assert "</script" not in html
    assert html.count("&lt;script&gt;") == 4
