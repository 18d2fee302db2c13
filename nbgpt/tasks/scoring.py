"""How likely a model finds a text: log-probabilities of its tokens, and of continuations to choose from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..validation import check

if TYPE_CHECKING:
    from ..model import Model


@dataclass(frozen=True)
class Score:
    """Log-probabilities of a text's tokens, in nats."""

    tokens: list[int]  # ids; the <|endoftext|> that a text may begin with is none of them
    texts: list[str]  # of each token; a character that is spread over several comes with the last of them
    logprobs: list[float | None]  # of each token given those before it; None: nothing stood before it

    @property
    def total(self) -> float:
        """Log-probability of the text: the sum over the tokens that have one."""
        return math.fsum(logprob for logprob in self.logprobs if logprob is not None)

    @property
    def mean(self) -> float:
        """The same for a token on average, which texts of different lengths can be compared by; nan if none has one."""
        n_scored = len(self.logprobs) - self.logprobs.count(None)
        return self.total / n_scored if n_scored else math.nan


def score(model: Model, text: str, *, bos: bool | None = None) -> Score:
    """Log-probability of each token of a text given those before it.

    bos: read <|endoftext|> first, so that the first token has a log-probability too; without it the first has none.
    None: as the model's file says. The values are transformers' `log_softmax(logits)` at each token.
    Raises ValueError for a text of more tokens than the context has room for.
    """
    return score_batch(model, [text], bos=bos)[0]


def score_batch(model: Model, texts: Sequence[str], *, bos: bool | None = None) -> list[Score]:
    """`score` of each text, to the bit, with many texts in one pass."""
    ids = encode_batch(model, texts, bos, room=model.config.n_ctx + 1)  # the last token need not be read
    surprises = model.engine.surprises_of(ids)
    scores = []
    for read, found in zip(ids, surprises, strict=True):
        has_bos = read[0] == model.tokenizer.bos_id  # text is never encoded to it
        logprobs = [] if has_bos else [None]
        decoder = model.tokenizer.stream(hidden=())
        tokens = read[1:] if has_bos else read
        scores.append(Score(tokens, list(map(decoder.push, tokens)), logprobs + (-found).tolist()))
    return scores


def rank(
    model: Model, text: str, choices: Sequence[str], *, normalize: bool = True, bos: bool | None = None
) -> list[tuple[str, float]]:
    """Choices with their log-probabilities as the continuation of a text, the likeliest first.

    normalize: divide by the number of the choice's tokens, so that a long choice is not unlikely for its length alone.
    A choice stands directly after the text, so a word begins with a space: " Paris". Spaces that the text ends with
    count as the choice's, since GPT-2's tokens have their spaces before them (lm-evaluation-harness does the same).
    The text is read once. bos: as for `score`. Raises ValueError if there are no choices, if one has no tokens and if
    one does not fit the context with the text; TypeError for a text in place of the choices.
    """
    check("text", text, str, allowed="a str")
    choices = _listed("choices", choices)
    if not choices:
        raise ValueError("choices is empty; give at least one")
    for choice in choices:
        check("choice", choice, str, allowed="a str")
    begin = text.rstrip(" ")
    ids = model.encode(begin, bos)
    continuations = [model.tokenizer.encode(text[len(begin) :] + choice) for choice in choices]
    for choice, continuation in zip(choices, continuations, strict=True):
        n_tokens, n_ctx = len(ids) + len(continuation), model.config.n_ctx
        if not choice:
            raise ValueError(f"choice {choice!r} has no tokens; leave it out")
        if n_tokens > n_ctx + 1:
            raise ValueError(
                f"the text and choice {choice!r:.60} make {n_tokens} tokens; this model's context is {n_ctx}"
            )
    surprises = model.engine.surprises_of([[ids[-1], *continuation] for continuation in continuations], ids[:-1])
    logprobs = [-float(found.mean() if normalize else found.sum()) for found in surprises]
    return sorted(zip(choices, logprobs, strict=True), key=lambda ranked: -ranked[1])


def encode_batch(model: Model, texts: Sequence[str], bos: bool | None, room: int) -> list[list[int]]:
    """Ids of each text. Raises ValueError for more than `room` tokens, TypeError for a text in place of the list."""
    texts = _listed("texts", texts)
    batch = [model.encode(text, bos) for text in texts]
    for text, ids in zip(texts, batch, strict=True):
        if len(ids) > room:
            raise ValueError(
                f"text {text!r:.60} has {len(ids)} tokens; this model's context is {model.config.n_ctx}: "
                "shorten it, or cut it into several"
            )
    return batch


def _listed(name: str, texts: Any) -> list[str]:
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        kind = "the text " * isinstance(texts, str)
        raise TypeError(f"{name} is {kind}{texts!r:.60}; it must be a list of texts")
    return list(texts)
