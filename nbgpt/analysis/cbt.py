"""The Children's Book Test: which of ten words stands in the gap of a sentence? Hill et al. 2015."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..formats import FormatError
from .estimate import Estimate
from .examples import Example
from .measure import Found, Measure, accuracy, sums

_N_LINES = 21
_GAP = "XXXXX"


def _read(text: str, where: str) -> list[Example]:
    """Examples of a file as it is published (cbtest_NE_test_2500ex.txt and its like).

    An example is 20 numbered lines with a sentence each, then "21 sentence with XXXXX<tab>answer<tab><tab>a|b|...", and
    an empty line.
    """
    examples = [_example(sentences, place) for sentences, place in _blocks(text, where)]
    if not examples:
        raise FormatError(f"{where} has no examples; wanted are {_N_LINES} numbered lines for each")
    return examples


def _blocks(text: str, where: str) -> Iterator[tuple[list[str], str]]:
    """The numbered lines of each example without their numbers, and the place of the last one."""
    sentences: list[str] = []
    place = where
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{where}, line {number}"
        count, _, sentence = line.partition(" ")
        if count != str(len(sentences) + 1):
            raise FormatError(f"{place} begins with {count!r:.20}; wanted is {len(sentences) + 1} and a sentence")
        sentences.append(sentence)
        if len(sentences) == _N_LINES:
            yield sentences, place
            sentences = []
    if sentences:
        raise FormatError(f"{place}: the file ends after {len(sentences)} of an example's {_N_LINES} lines")


def _example(sentences: list[str], place: str) -> Example:
    query, *rest = sentences[-1].split("\t")
    answer, words = (rest[0], rest[-1].strip().split("|")) if len(rest) >= 2 else ("", [])
    before, gap, after = query.partition(_GAP)
    if not gap or len(words) < 2 or not all(words) or answer not in words:
        raise FormatError(
            f"{place}: {sentences[-1]!r:.60}; wanted are a sentence with {_GAP}, a tab, the answer, two tabs, and the "
            "words to choose from with | between them"
        )
    context = "".join(f"{sentence} " for sentence in sentences[:-1]) + before
    return Example(context, tuple(word + after for word in words), words.index(answer))


def _estimates(examples: Sequence[Example], found: Found) -> dict[str, Estimate]:
    return {"acc": accuracy(examples, sums(found))}


CBT = Measure(
    "GPT-2's paper, 3.2: the likeliest word together with the rest of its sentence, after the 20 sentences and the "
    "sentence's beginning; the texts as the file has them, without the paper's de-tokenizer",
    _read,
    _estimates,
)
