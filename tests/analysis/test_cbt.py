"""The Children's Book Test, against the rule of GPT-2's paper in float64."""

import pytest
from protocols import check, encode, log_likelihood, share

from nbgpt.analysis.cbt import CBT
from nbgpt.formats import FormatError

WORDS = ["night", "day", "end", "sea"]
SENTENCES = [f"Sentence {n} , it was ." for n in range(1, 21)]
QUERIES = ["It was a dark XXXXX , and the end .", "XXXXX came .", "`` XXXXX ! ''"]


def block(query, answer, words=WORDS, sentences=SENTENCES):
    lines = [f"{n} {sentence}" for n, sentence in enumerate(sentences, start=1)]
    return "\n".join([*lines, f"21 {query}\t{answer}\t\t{'|'.join(words)}"]) + "\n\n"


EXAMPLES = [(query, answer) for query in QUERIES for answer in ("night", "sea")]
TEXT = "".join(block(*one) for one in EXAMPLES)


def by_the_paper():
    """ "the probability of each choice and the rest of the sentence conditioned on this choice"."""
    hits = []
    for query, answer in EXAMPLES:
        beginning, rest = query.split("XXXXX")
        context = " ".join([*SENTENCES, beginning])
        totals = [log_likelihood(*encode(context, word + rest))[0] for word in WORDS]
        hits.append(WORDS[totals.index(max(totals))] == answer)
    return share(hits)


def test_cbt(protocol_model):
    examples = CBT.read(TEXT, "file")
    assert examples[0].context == " ".join(SENTENCES) + " It was a dark "
    assert examples[1].choices == tuple(f"{word} , and the end ." for word in WORDS)
    assert [example.label for example in examples] == [0, 3] * 3
    result = CBT.run(protocol_model.engine, protocol_model.tokenizer, examples)
    check(result.estimates["acc"], by_the_paper())
    assert (result.n, result.n_truncated) == (6, 6)  # 20 sentences are more than 100 tokens
    assert CBT.read(TEXT.replace("\n", "\r\n"), "file") == examples


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file has no examples; wanted are 21 numbered lines for each"),
        ("\n\n", "file has no examples"),
        (
            block(*EXAMPLES[0])[:-60].rsplit("\n", 1)[0],
            "file, line 20: the file ends after 20 of an example's 21 lines",
        ),
        (
            block(*EXAMPLES[0]).replace("\n7 ", "\nseven "),
            "file, line 7 begins with 'seven'; wanted is 7 and a sentence",
        ),
        (block("It was a night .", "night"), "file, line 21: .*; wanted are a sentence with XXXXX"),
        (block("a XXXXX", "nobody"), "file, line 21: .* the answer"),
        (block("a XXXXX", "night", ["night"]), "file, line 21: "),
        (block("a XXXXX", "night", ["night", ""]), "file, line 21: "),
        (block("a XXXXX", "night").replace("\t", " "), "file, line 21: "),
        (TEXT + "8 more\n", "file, line 133 begins with '8'; wanted is 1"),
    ],
)
def test_files_of_another_form(text, message):
    with pytest.raises(FormatError, match=message):
        CBT.read(text, "file")
