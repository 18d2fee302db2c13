"""Scoring: log-probabilities of a text's tokens, and of several continuations to choose from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.engine import Engine
from ..text.prompts import Text
from ..tokenizer import Tokenizer
from ..validation import check


@dataclass(frozen=True)
class Score:
    """Log-probabilities of a text's tokens, in nats."""

    tokens: list[int]  # ids, without the <|endoftext|> that bos adds
    texts: list[str]  # of each token; a character that spans several tokens is given with the last of them
    logprobs: list[float | None]  # of each token given those before it; None for a first token without bos

    @property
    def total(self) -> float:
        """Log-probability of the text: the sum over the tokens that have one."""
        return math.fsum(logprob for logprob in self.logprobs if logprob is not None)

    @property
    def mean(self) -> float:
        """`total` divided by the number of tokens that have a log-probability; nan if there is none."""
        n_scored = len(self.logprobs) - self.logprobs.count(None)
        return self.total / n_scored if n_scored else math.nan


def score(engine: Engine, tokenizer: Tokenizer, text: Text, *, bos: bool | None = None) -> Score:
    """Log-probability of each token of a text given those before it: transformers' `log_softmax(logits)`.

    Args:
        engine: runs the model.
        tokenizer: the model's tokenizer.
        text: at most n_ctx + 1 tokens, <|endoftext|> included: the last one is scored but not read.
        bos: read <|endoftext|> first, so that the first token is scored too; None: as the model's file says.

    Returns:
        The tokens with their log-probabilities.

    Raises:
        ValueError: the text does not fit the context.
    """
    return score_batch(engine, tokenizer, [text], bos=bos)[0]


def score_batch(engine: Engine, tokenizer: Tokenizer, texts: Sequence[Text], *, bos: bool | None = None) -> list[Score]:
    """`score` of each text: the same bits, but many texts are read in one pass."""
    batch = encode_batch(engine, tokenizer, texts, bos, room=engine.config.n_ctx + 1)
    return [_score(tokenizer, ids, -nll) for ids, nll in zip(batch, engine.nll_of(batch), strict=True)]


def _score(tokenizer: Tokenizer, ids: list[int], logprobs: Any) -> Score:
    """The score of ids [n]; logprobs float64 [n - 1] are those of ids[1:]."""
    has_bos = ids[0] == tokenizer.bos_id  # which `bos` has added: no text is encoded as <|endoftext|>
    tokens = ids[1:] if has_bos else ids
    texts = list(map(tokenizer.stream(hidden=()).push, tokens))
    return Score(tokens, texts, ([] if has_bos else [None]) + logprobs.tolist())


def rank(
    engine: Engine,
    tokenizer: Tokenizer,
    text: str,
    choices: Sequence[str],
    *,
    normalize: bool = True,
    bos: bool | None = None,
) -> list[tuple[str, float]]:
    """Choices with their log-probabilities as the continuation of a text, likeliest first. The text is read once.

    A choice follows the text directly, so that a word begins with a space: " Paris". Spaces at the end of the text are
    moved to the choice, since GPT-2's tokens begin with their space (as in lm-evaluation-harness).

    Args:
        engine: runs the model.
        tokenizer: the model's tokenizer.
        text: what every choice continues.
        choices: texts of at least one token.
        normalize: divide by the number of the choice's tokens, so that long choices are not at a disadvantage.
        bos: begin with <|endoftext|>; None: as the model's file says.

    Returns:
        (choice, log-probability in nats), sorted.

    Raises:
        ValueError: there are no choices, one is empty, or one does not fit the context after the text.
        TypeError: choices is a text instead of a list.
    """
    check("text", text, str, allowed="a str")
    choices = _checked_choices(choices)
    prompt = text.rstrip(" ")
    ids = tokenizer.encode_prompt(prompt, bos)
    continuations = [tokenizer.encode(text[len(prompt) :] + choice) for choice in choices]
    for choice, continuation in zip(choices, continuations, strict=True):
        n_tokens, n_ctx = len(ids) + len(continuation), engine.config.n_ctx
        if n_tokens > n_ctx + 1:
            raise ValueError(
                f"the text and choice {choice!r:.60} make {n_tokens} tokens; this model's context is {n_ctx}"
            )
    nll = engine.nll_of([[ids[-1], *continuation] for continuation in continuations], ids[:-1])
    logprobs = [-float(one.mean() if normalize else one.sum()) for one in nll]
    return sorted(zip(choices, logprobs, strict=True), key=lambda ranked: -ranked[1])


def _checked_choices(choices: Any) -> list[str]:
    checked = listed("choices", choices)
    if not checked:
        raise ValueError("choices is empty; give at least one")
    for choice in checked:
        check("choice", choice, str, allowed="a str")
        if not choice:
            raise ValueError(f"choice {choice!r} has no tokens; leave it out")
    return checked


def encode_batch(
    engine: Engine, tokenizer: Tokenizer, texts: Sequence[Text], bos: bool | None, room: int
) -> list[list[int]]:
    """Ids of each text.

    Raises:
        ValueError: a text has more than `room` tokens.
        TypeError: texts is a text instead of a list.
        RuntimeError: the model is closed.
    """
    engine.check_open()
    texts = listed("texts", texts)
    batch = [tokenizer.encode_prompt(text, bos) for text in texts]
    for text, ids in zip(texts, batch, strict=True):
        if len(ids) > room:
            raise ValueError(
                f"text {text!r:.60} has {len(ids)} tokens; this model's context is {engine.config.n_ctx}: "
                "shorten it, or cut it into several"
            )
    return batch


def listed(name: str, texts: Any) -> list[str]:
    """Texts as a list. Raises TypeError, which begins with `name`, for a text instead of texts."""
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        kind = "the text " * isinstance(texts, str)
        raise TypeError(f"{name} is {kind}{texts!r:.60}; it must be a list of texts")
    return list(texts)
