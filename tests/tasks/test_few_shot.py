"""Few-shot prompts."""

import numpy as np
import pytest

from nbgpt.tasks.few_shot import FewShot, drawn, standard_error
from nbgpt.tasks.templates import TextTemplate

SOURCE = "{% for one in examples %}{{ one.text }} => {{ one.label }}\n{% endfor %}{{ text }} =>"


def test_prompts():
    shown = [{"text": "good", "label": "+"}, {"text": "bad", "label": "-"}]
    few = FewShot(TextTemplate(SOURCE, "t"), shown)
    assert few.prompt({"text": "fine", "label": "?"}) == "good => +\nbad => -\nfine =>"
    assert FewShot(TextTemplate("{{ row['a b'] }}", "t")).prompt({"a b": "x"}) == "x"
    with pytest.raises(ValueError, match="'text' is undefined"):
        few.prompt({"label": "?"})


def test_shots():
    rows = [{"n": n} for n in range(20)]
    assert drawn(rows, 5, 1) == drawn(rows, 5, 1) != drawn(rows, 5, 2)
    assert sorted(row["n"] for row in drawn(rows, 20, 1)) == list(range(20))
    with pytest.raises(ValueError, match="shots is 21; it must be from 0 to 20"):
        drawn(rows, 21, 1)


def test_standard_error():
    trials = np.array([1, 1, 1, 0, 1, 0, 0, 1.0])
    assert standard_error(trials.mean(), 8) == pytest.approx(trials.std(ddof=1) / 8**0.5)
    assert standard_error(1.0, 1) == 0
