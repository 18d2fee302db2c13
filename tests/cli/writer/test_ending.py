"""Where sentences and paragraphs end, however the text is cut into pieces."""

import pytest

from nbgpt.cli.writer.ending import length_of

CASES = [
    ("sentence", "", "It was dark. He went.", "It was dark."),
    ("sentence", "", "It was dark", None),
    ("sentence", "", "It was dark.", None),  # "3." may go on with a digit
    ("sentence", "", "Pi is 3.14 or so. Yes", "Pi is 3.14 or so."),
    ("sentence", "", 'He said, "Go!" And', 'He said, "Go!"'),
    ("sentence", "", "What?! No", "What?!"),
    ("sentence", "", "Wait... Then", "Wait..."),
    ("sentence", "", "Mr. Smith and Dr. A. Jones left. So", "Mr. Smith and Dr. A. Jones left."),
    ("sentence", "by Mr", ". Smith. He", ". Smith."),
    ("sentence", "It was dark.", " He went. So", " He went."),
    ("sentence", "It was dark", ". He went", "."),
    ("sentence", "", "A heading\n\nA text.", "A heading"),
    ("sentence", "", "暗かった。彼", "暗かった。"),
    ("paragraph", "", "One. Two.\nThree", "One. Two."),
    ("paragraph", "", "\n\nOne. \n", "\n\nOne."),
    ("paragraph", "One.", "\n\nTwo.\nThree", "\n\nTwo."),
    ("paragraph", "", "One. Two.", None),
    ("length", "", "One.\n\nTwo. Three.", None),
]


@pytest.mark.parametrize(("end", "before", "text", "found"), CASES)
def test_ends(end, before, text, found):
    assert length_of(text, end, before) == (None if found is None else len(found))


@pytest.mark.parametrize(("end", "before", "text", "found"), [case for case in CASES if case[3]])
def test_it_is_found_when_the_text_grows(end, before, text, found):
    """What was found of a beginning does not change as more comes."""
    lengths = [length_of(text[:n], end, before) for n in range(len(text) + 1)]
    assert {*lengths} == {None, len(found)}
    assert lengths == sorted(lengths, key=lambda length: length is not None)
