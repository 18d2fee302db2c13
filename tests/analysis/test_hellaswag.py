"""HellaSwag, against the two protocols in float64, written after their sources."""

import json
import re

import numpy as np
import pytest
from folders import TOKENIZER
from protocols import check, encode, log_likelihood, share

from nbgpt.analysis.hellaswag import HELLASWAG
from nbgpt.formats import FormatError


def row(label, activity="Roof removal", a="A man is sitting on a roof.", b="he", **changes):
    endings = ["is using wrap [header] to wrap.", "is ripping level tiles off. [title] And more", "holds  it", "9"]
    return {"activity_label": activity, "ctx_a": a, "ctx_b": b, "ctx": f"{a} {b}", "endings": endings, "label": label}


ROWS = [row(0), row(1), row(2), row("3"), row(1, b=""), row(1, a="[header] How to [title] eat.  [step] Sit", b="then")]
TEXT = "".join(json.dumps(one) + "\n" for one in ROWS)


def preprocess(text):
    """lm_eval/tasks/hellaswag/utils.py."""
    text = text.strip()
    text = text.replace(" [title]", ". ")
    text = re.sub("\\[.*?\\]", "", text)
    return text.replace("  ", " ")


def by_the_harness():
    acc, acc_norm = [], []
    for doc in ROWS:
        ctx = doc["ctx_a"] + " " + doc["ctx_b"].capitalize()
        query = preprocess(doc["activity_label"] + ": " + ctx)
        choices = [preprocess(ending) for ending in doc["endings"]]
        totals = [log_likelihood(*encode(query, f" {choice}"))[0] for choice in choices]
        acc.append(int(np.argmax(totals)) == int(doc["label"]))
        acc_norm.append(
            int(np.argmax([total / len(choice) for total, choice in zip(totals, choices, strict=True)]))
            == int(doc["label"])
        )
    return share(acc), share(acc_norm)


def by_llm_c():
    """dev/data/hellaswag.py: render_example and evaluate."""
    acc, acc_norm = [], []
    for example in ROWS:
        context = TOKENIZER.encode(example["ctx"])
        ends = [TOKENIZER.encode(f" {end}") for end in example["endings"]]
        losses = [-log_likelihood(context, end)[0] for end in ends]
        acc.append(int(np.argmin(losses)) == int(example["label"]))
        acc_norm.append(
            int(np.argmin([loss / len(end) for loss, end in zip(losses, ends, strict=True)])) == int(example["label"])
        )
    return share(acc), share(acc_norm)


@pytest.mark.parametrize(("protocol", "twin"), [("lm-eval", by_the_harness), ("llm.c", by_llm_c)])
def test_protocols(protocol_model, protocol, twin):
    measure = HELLASWAG[protocol]
    result = measure.run(protocol_model.engine, protocol_model.tokenizer, measure.read(TEXT, "file"))
    acc, acc_norm = twin()
    check(result.estimates["acc"], acc)
    check(result.estimates["acc_norm"], acc_norm)
    assert result.n == len(ROWS)


def test_texts():
    """Brackets and capitals, by hand."""
    harness, c = HELLASWAG["lm-eval"].read(TEXT, "file"), HELLASWAG["llm.c"].read(TEXT, "file")
    assert harness[0].context == "Roof removal: A man is sitting on a roof. He "
    assert harness[0].choices == ("is using wrap to wrap.", "is ripping level tiles off.. And more", "holds it", "9")
    assert harness[5].context == "Roof removal: How to. eat.  Sit Then "
    assert c[0].context == "A man is sitting on a roof. he "
    assert c[0].choices == tuple(ROWS[0]["endings"])


def test_llm_c_needs_less():
    fields = {name: row(1)[name] for name in ("ctx", "endings", "label")}
    assert len(HELLASWAG["llm.c"].read(json.dumps(fields), "file")) == 1
    with pytest.raises(FormatError, match="file, line 1 has no 'ctx_a'"):
        HELLASWAG["lm-eval"].read(json.dumps(fields), "file")
    with pytest.raises(FormatError, match="'label' is ''; wanted is the number of the right one, 0 to 3"):
        HELLASWAG["llm.c"].read(json.dumps(fields | {"label": ""}), "file")  # as in the test split
