"""The zero-shot tasks of GPT-2's paper, each a prompt and a rule for where the answer ends.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", sections 3.5 to 3.8. The words of
the prompts are the paper's; the line breaks, which it does not give, are ours. Small models do badly at all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from ..validation import check


class Streams(Protocol):
    """Anything that continues a prompt piece by piece, as `nbgpt.Model` does."""

    @property
    def stream(self) -> Callable[..., Any]:
        """`stream(prompt, **options)`: an iterable of pieces of text."""
        ...


Pairs = Sequence[tuple[str, str]]

MAX_TOKENS = 100
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s)")
_LINE_END = re.compile(r"\n")
_EITHER_END = re.compile(f"{_SENTENCE_END.pattern}|{_LINE_END.pattern}")


def summary_prompt(article: str) -> str:
    """The article, then "TL;DR:" on a line of its own."""
    return f"{article.rstrip()}\nTL;DR:"


def summarize(model: Streams, article: str, **options: Any) -> str:
    """A summary of an article: the first three sentences of the continuation of `summary_prompt`, or fewer.

    Args:
        model: continues the prompt.
        article: what to summarize.
        options: as for `Model.stream`; the defaults are the paper's (3.6): 100 tokens, each drawn from the likeliest 2.

    Returns:
        The summary.

    Raises:
        ValueError: the article does not fit the context; overflow="truncate_left" drops its beginning.
    """
    settings = {"max_tokens": MAX_TOKENS, "temperature": 1.0, "top_k": 2, **options}
    return _until(_SENTENCE_END, _stream(model, summary_prompt(article), settings), 3)


def translation_prompt(text: str, pairs: Pairs) -> str:
    """A line "source = translation" for each pair, then "text =". Raises ValueError if there are no pairs."""
    pairs = _checked(pairs)
    if not pairs:
        raise ValueError("pairs is empty; give at least one example: (text, its translation)")
    return "".join(f"{source} = {target}\n" for source, target in pairs) + f"{text} ="


def translate(model: Streams, text: str, pairs: Pairs, **options: Any) -> str:
    """A translation of a sentence: the first sentence or line of the continuation of `translation_prompt`.

    Args:
        model: continues the prompt.
        text: the sentence to translate.
        pairs: examples, (sentence, its translation).
        options: as for `Model.stream`; the defaults are the paper's (3.7): greedy, at most 100 tokens.

    Returns:
        The translation.

    Raises:
        ValueError: there are no pairs, or the prompt does not fit the context.
    """
    settings = {"max_tokens": MAX_TOKENS, "greedy": True, **options}
    return _until(_EITHER_END, _stream(model, translation_prompt(text, pairs), settings))


def answer_prompt(question: str, pairs: Pairs = (), context: str = "") -> str:
    """The context, if any; "Q: ..." and "A: ..." for each pair; then "Q: question" and "A:"."""
    before = f"{context.rstrip()}\n\n" if context else ""
    return before + "".join(f"Q: {asked}\nA: {said}\n\n" for asked, said in _checked(pairs)) + f"Q: {question}\nA:"


def answer(model: Streams, question: str, pairs: Pairs = (), context: str = "", **options: Any) -> str:
    """An answer to a question: the first line of the continuation of `answer_prompt`.

    Args:
        model: continues the prompt.
        question: what to answer.
        pairs: questions with answers, as examples of length and kind (3.8), or the conversation so far.
        context: a text that the question is about (3.5).
        options: as for `Model.stream`; the defaults are the paper's: greedy, at most 100 tokens.

    Returns:
        The answer.

    Raises:
        ValueError: the prompt does not fit the context.
    """
    settings = {"max_tokens": MAX_TOKENS, "greedy": True, **options}
    return _until(_LINE_END, _stream(model, answer_prompt(question, pairs, context), settings))


def _checked(pairs: Any) -> list[tuple[str, str]]:
    """The pairs as a list. Raises ValueError unless each is a tuple or list of two texts."""
    check("pairs", pairs, Iterable, allowed="a list of pairs of texts")
    checked: list[tuple[str, str]] = list(pairs)
    for pair in checked:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ValueError(f"pairs has {pair!r:.60}; each must be two texts")
    return checked


def _stream(model: Streams, prompt: str, settings: dict[str, Any]) -> Iterable[str]:
    if settings.get("n") is not None:
        raise ValueError(f"n is {settings['n']!r}; it must be left out: a task has one answer")
    stream: Iterable[str] = model.stream(prompt, **settings)
    return stream


def _until(end: re.Pattern[str], pieces: Iterable[str], n: int = 1) -> str:
    """The text up to its n-th match of `end`, stripped; reads no more pieces than that takes."""
    text = ""
    for piece in pieces:
        text = (text + piece).lstrip()
        ends = [match.end() for match in end.finditer(text)]
        if len(ends) >= n:
            return text[: ends[n - 1]].rstrip()
    return text.rstrip()
