"""What the model sees and thinks at the end of a text: its tokens, the likeliest next words, and why a word came."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...analysis.lens import logit_lens
from ...analysis.trace import token_text
from ...engine.kv_cache import Sequence
from ...operations import softmax

if TYPE_CHECKING:
    from ...model import Model
    from ...text.completion import Completion

N_WORDS = 9
"""Alternatives that are shown: one digit picks one."""
_MAX_TOKENS = 6
"""Tokens of a word at most; longer ones are cut."""
_N_LIKELIEST = 3
"""Tokens that the logit lens shows of a layer."""
_N_LAST = 60
"""Tokens of a text's end that are listed."""


@dataclass(frozen=True)
class Alternative:
    """A word that may come next."""

    text: str
    probability: float  # of its tokens one after another, by the model's own logits


def next_words(model: Model, text: str) -> tuple[list[Alternative], float]:
    """The likeliest next words, and the probability that the text ends here instead.

    The likeliest tokens begin them; one that leaves a word unfinished goes on with the likeliest tokens to its end.
    """
    ids = _window(model, text, _MAX_TOKENS)
    probabilities = _next_probabilities(model, ids)
    ends = sorted(model.tokenizer.eos_ids)
    p_end = float(probabilities[ends].sum())
    probabilities[[*ends, *sorted(model.tokenizer.hidden_ids - model.tokenizer.eos_ids)]] = 0
    likeliest = [
        int(token) for token in np.argsort(-probabilities, kind="stable")[:N_WORDS] if probabilities[token] > 0
    ]
    found = model.generate(
        [[*ids, token] for token in likeliest], max_tokens=_MAX_TOKENS - 1, greedy=True, logprobs=0, ignore_eos=True
    )
    words = [
        _word(model, ids, token, float(probabilities[token]), rest)
        for token, rest in zip(likeliest, found, strict=True)
    ]
    return sorted((word for word in words if word.text), key=lambda word: -word.probability), p_end


def _word(model: Model, ids: list[int], token: int, probability: float, rest: Completion) -> Alternative:
    """A token, and those after it that belong to the same word."""
    taken = [token]
    for one in rest.logprobs or ():
        if not _goes_on(model, taken[-1], one.token):
            break
        taken.append(one.token)
        probability *= math.exp(one.logprob or 0.0)
    return Alternative(model.tokenizer.decode_after(ids, taken), probability)


def _goes_on(model: Model, token: int, following: int) -> bool:
    """Do two tokens belong to one word, or to one character?"""
    before, after = (model.tokenizer.decode_bytes((one,)) for one in (token, following))
    if after[:1] and after[0] & 0xC0 == 0x80:  # UTF-8: not the first byte of a character
        return True
    last, first = before.decode(errors="ignore")[-1:], after.decode(errors="ignore")[:1]
    return last.isalnum() and first.isalnum()


def _is_wordlike(model: Model, token: int) -> bool:
    """Is a token part of a word, and not punctuation, space, or an end of text?"""
    octets = model.tokenizer.decode_bytes((token,))
    return token not in model.tokenizer.hidden_ids and (not octets.isascii() or octets.decode().strip()[:1].isalnum())


def alternatives_table(words: list[Alternative], p_end: float) -> str:
    """A numbered line for each word."""
    lines = [f"{number:3}  {_percent(word.probability)}  {_quoted(word.text)}" for number, word in enumerate(words, 1)]
    return "\n".join([*lines, f"     {_percent(p_end)}  the text ends here"])


def tokens_table(model: Model, text: str, columns: int) -> str:
    """The tokens of a text's end with their ids, and how many the whole text has."""
    ids, n_ctx = model.encode(text), model.config.n_ctx
    cells = [f"{token} {_quoted(token_text(model.tokenizer, token))}" for token in ids[-_N_LAST:]]
    lines = [""]
    for cell in cells:
        if lines[-1] and len(lines[-1]) + 2 + len(cell) > columns:
            lines.append("")
        lines[-1] += "  " * bool(lines[-1]) + cell
    shown = f"; the last {_N_LAST} are shown" if len(ids) > _N_LAST else ""
    seen = "it forgets the beginning" if len(ids) > n_ctx else f"{n_ctx - len(ids)} more fit"
    return "\n".join([*lines, f"{len(ids)} tokens{shown}. The model sees {n_ctx} at a time: {seen}."])


def why_table(model: Model, text: str) -> str:
    """How the prediction of the last word came about, layer by layer.

    Raises ValueError if nothing stands before the word.
    """
    ids = _window(model, text)
    place = last_word(model, ids)
    if not place:
        raise ValueError("/why explains the last word of a text by those before it; write some first")
    target = ids[place]
    lens = softmax(logit_lens(model.engine, ids[:place]))
    name = _quoted(token_text(model.tokenizer, target))
    lines = [
        f"What each layer would write in place of {name}, if it were the last (/help why):",
        f"layer  {name:>14}  rank  the likeliest",
    ]
    for layer, row in enumerate(lens):
        likeliest = np.argsort(-row, kind="stable")[:_N_LIKELIEST]
        texts = (_quoted(token_text(model.tokenizer, int(i))) for i in likeliest)
        best = ", ".join(f"{text} {_percent(row[i]).strip()}" for i, text in zip(likeliest, texts, strict=True))
        rank = 1 + int((row > row[target]).sum())
        lines.append(f"{layer:5}  {_percent(row[target]):>{max(14, len(name))}}  {rank:4}  {best}")
    return "\n".join(lines)


def last_word(model: Model, ids: list[int]) -> int:
    """The place of the token that begins the last word, or of the last token if there are no words."""
    places = (place for place in reversed(range(len(ids))) if _is_wordlike(model, ids[place]))
    place = next(places, len(ids) - 1)
    while place and _goes_on(model, ids[place - 1], ids[place]):
        place -= 1
    return place


def _window(model: Model, text: str, room: int = 0) -> list[int]:
    """The ids that the model sees of a text when `room` more are to follow."""
    return model.encode(text)[-(model.config.n_ctx - room) :]


def _next_probabilities(model: Model, ids: list[int]) -> np.ndarray:
    """Probabilities of the next token, float32 [n_vocab]; 0 for ids that have no token."""
    engine, sequence = model.engine, Sequence()
    try:
        if len(ids) > 1:
            engine.append(sequence, ids[:-1])
        logits = engine.logits_after(ids[-1:], [sequence])[0]
    finally:
        engine.free(sequence)
    logits[engine.absent_ids] = -np.inf
    return softmax(logits)


def _quoted(text: str) -> str:
    """The text in quotation marks, which show the space at its beginning, as JSON has it."""
    return json.dumps(text, ensure_ascii=False).replace("\\\\x", "\\x")


def _percent(probability: float) -> str:
    return f"{100 * probability:5.1f} %"
