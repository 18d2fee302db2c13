"""Multiple choice, against the protocol of lm-evaluation-harness in float64."""

import json

import pytest
from folders import TOKENIZER
from protocols import check, encode, log_likelihood, share

from nbgpt.analysis.choices import CHOICES
from nbgpt.formats import FormatError

ROWS = [
    {"context": "It was a dark and stormy", "choices": ["night.", "day, and the sun was high", "9"], "label": label}
    for label in (0, 1, 2)
] + [
    {"context": "", "choices": ["The end", "a"], "label": "1"},
    {"context": "The Time Traveller ", "choices": [" was", "expounding a recondite matter"], "label": 1},
]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS)


def by_the_harness():
    """lm_eval/api/task.py, ConfigurableTask.process_results of multiple_choice; target_delimiter is a space."""
    acc, acc_norm = [], []
    for row in ROWS:
        totals = []
        for choice in row["choices"]:
            before, after = encode(row["context"], f" {choice}")
            totals.append(log_likelihood(before or [TOKENIZER.bos_id], after)[0])
        normed = [total / len(choice) for total, choice in zip(totals, row["choices"], strict=True)]
        acc.append(totals.index(max(totals)) == int(row["label"]))
        acc_norm.append(normed.index(max(normed)) == int(row["label"]))
    return share(acc), share(acc_norm)


def test_choices(protocol_model):
    result = CHOICES.run(protocol_model.engine, protocol_model.tokenizer, CHOICES.read(TEXT, "file"))
    acc, acc_norm = by_the_harness()
    assert (result.n, result.n_truncated) == (5, 0)
    check(result.estimates["acc"], acc)
    check(result.estimates["acc_norm"], acc_norm)


@pytest.mark.parametrize("row", [{}, {"context": "a"}, {"context": "a", "choices": ["a", "b"]}])
def test_rows_of_another_form(row):
    with pytest.raises(FormatError, match=r"file, line 1 has no "):
        CHOICES.read(json.dumps(row), "file")
