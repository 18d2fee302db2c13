"""What GPT-2 does without having been trained for it: the tasks of its paper, each a prompt and where its answer ends.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", sections 3.5 to 3.8. The paper gives
the words of the prompts; where their lines break is our choice. Small models are bad at all of this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..validation import check

if TYPE_CHECKING:
    from ..model import Model

Pairs = Sequence[tuple[str, str]]

MAX_TOKENS = 100
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s)")
_LINE_END = re.compile(r"\n")
_EITHER_END = re.compile(f"{_SENTENCE_END.pattern}|{_LINE_END.pattern}")


def summary_prompt(article: str) -> str:
    """The article, and "TL;DR:" in a line of its own."""
    return f"{article.rstrip()}\nTL;DR:"


def summarize(model: Model, article: str, **options: Any) -> str:
    """A summary of an article: the first three sentences of what follows `summary_prompt`, or all if there are fewer.

    As the paper has it (3.6), of 100 tokens, each drawn from the likeliest two. options: as for `Model.stream`, in
    place of these. Raises ValueError for an article that does not fit the context with them; overflow="truncate_left"
    drops its beginning.
    """
    settings = {"max_tokens": MAX_TOKENS, "temperature": 1.0, "top_k": 2, **options}
    return _until(_SENTENCE_END, _stream(model, summary_prompt(article), settings), 3)


def translation_prompt(text: str, pairs: Pairs) -> str:
    """A line "english = french" for each pair, and "text =". Raises ValueError if there are no pairs."""
    pairs = _checked(pairs)
    if not pairs:
        raise ValueError("pairs is empty; give at least one example: (text, its translation)")
    return "".join(f"{source} = {target}\n" for source, target in pairs) + f"{text} ="


def translate(model: Model, text: str, pairs: Pairs, **options: Any) -> str:
    """A translation of a sentence, from examples of what is meant: the first sentence or line of what follows.

    As the paper has it (3.7), greedily, 100 tokens at most. options: as for `Model.stream`, in place of these. Raises
    ValueError if there are no pairs, and for a prompt that does not fit the context.
    """
    settings = {"max_tokens": MAX_TOKENS, "greedy": True, **options}
    return _until(_EITHER_END, _stream(model, translation_prompt(text, pairs), settings))


def answer_prompt(question: str, pairs: Pairs = (), context: str = "") -> str:
    """The context, if any, then "Q: ..." and "A: ..." for each pair, and "Q: question", "A:"."""
    before = f"{context.rstrip()}\n\n" if context else ""
    return before + "".join(f"Q: {asked}\nA: {said}\n\n" for asked, said in _checked(pairs)) + f"Q: {question}\nA:"


def answer(model: Model, question: str, pairs: Pairs = (), context: str = "", **options: Any) -> str:
    """An answer to a question: the first line of what follows `answer_prompt`.

    pairs: questions with answers that show how long and of which kind an answer is (3.8), or the conversation before.
    context: a text that the question is about (3.5). Greedy as in the paper, 100 tokens at most; options: as for
    `Model.stream`, in place of these. Raises ValueError for a prompt that does not fit the context.
    """
    settings = {"max_tokens": MAX_TOKENS, "greedy": True, **options}
    return _until(_LINE_END, _stream(model, answer_prompt(question, pairs, context), settings))


def _checked(pairs: Any) -> list[tuple[str, str]]:
    """Raise ValueError unless they are pairs of texts; a text of two letters is none."""
    check("pairs", pairs, Iterable, allowed="a list of pairs of texts")
    checked: list[tuple[str, str]] = list(pairs)
    for pair in checked:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ValueError(f"pairs has {pair!r:.60}; each must be two texts")
    return checked


def _stream(model: Model, prompt: str, settings: dict[str, Any]) -> Iterable[str]:
    if settings.get("n") is not None:
        raise ValueError(f"n is {settings['n']!r}; it must be left out: a task has one answer")
    stream: Iterable[str] = model.stream(prompt, **settings)
    return stream


def _until(end: re.Pattern[str], pieces: Iterable[str], n: int = 1) -> str:
    """Text up to its n-th end, without space around it; pieces after that are not asked for."""
    text = ""
    for piece in pieces:
        text = (text + piece).lstrip()
        ends = [match.end() for match in end.finditer(text)]
        if len(ends) >= n:
            return text[: ends[n - 1]].rstrip()
    return text.rstrip()
