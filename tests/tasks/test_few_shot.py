"""Few-shot prompts."""

import pytest

from nbgpt.tasks.few_shot import FewShot, drawn
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
