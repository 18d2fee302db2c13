"""Logits processors and truncations: penalties, bans, and which tokens may be drawn.

The order is that of transformers, which lacks what is in brackets: logit_bias, repetition_penalty, [presence_penalty
and frequency_penalty, DRY], no_repeat_ngram_size, bad_words, min_tokens, logits_processors; the temperature; then
top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff [or Mirostat 2 in place of these six].

ids: int32 [n], the text so far, prompt first. scores: float32 [n_vocab], the logits as far as they have been processed.
Penalties and bans become logits processors as users write them, (ids, scores) -> scores, when their other arguments are
bound; they change the scores in place. Truncations take scores float32 [n] and return which to keep, bool [n]. They
partition and do not sort where they can, because they run for every token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np

from .params import LogitsProcessor, PerRequestProcessor, SamplingParams
from .portable import exp, log, log_softmax, power, softmax

BANS = "logit_bias, bad_words, no_repeat_ngram_size, min_tokens, choice, regex, json_schema and logits_processors"
"""Options that can ban tokens, for the error message if none is left."""
_MOST = 69.0  # e^69 is as good as a ban, and far from the end of float32


# --- what a request asks for, in order -------------------------------------------------------------------------------


def processors_of(params: SamplingParams, n_prompt: int) -> list[LogitsProcessor]:
    """The logits processors that a request asks for, in order; n_prompt: number of prompt ids."""
    p = params
    openai: dict[str, Any] = {"n_prompt": n_prompt, "presence": p.presence_penalty, "frequency": p.frequency_penalty}
    dry: dict[str, Any] = {
        "base": p.dry_base,
        "allowed_length": p.dry_allowed_length,
        "breakers": p.dry_sequence_breakers,
    }
    ours: list[tuple[Any, LogitsProcessor]] = [
        (p.logit_bias, partial(add_bias, bias=p.logit_bias)),
        (p.repetition_penalty != 1, partial(penalize_repetition, penalty=p.repetition_penalty)),
        (p.presence_penalty or p.frequency_penalty, partial(penalize_presence_and_frequency, **openai)),
        (p.dry_multiplier, partial(penalize_continuation, multiplier=p.dry_multiplier, **dry)),
        (p.no_repeat_ngram_size, partial(ban_repeated_ngrams, size=p.no_repeat_ngram_size)),
        (p.bad_words, BannedWords(p.bad_words)),
        (p.min_tokens and p.stop_ids, partial(ban_ends, n_least=n_prompt + p.min_tokens, ends=sorted(p.stop_ids))),
    ]
    users = (one.for_request(n_prompt) if isinstance(one, PerRequestProcessor) else one for one in p.logits_processors)
    return [processor for is_asked, processor in ours if is_asked] + [_guarded(processor) for processor in users]


def truncations_of(params: SamplingParams) -> list[tuple[Callable[[np.ndarray, Any], np.ndarray], float]]:
    """The truncations that a request asks for, in order, each with its argument."""
    p = params
    ours = (
        (p.top_k, keep_top_k, p.top_k),
        (p.top_p < 1, keep_top_p, p.top_p),
        (p.min_p, keep_min_p, p.min_p),
        (p.typical_p < 1, keep_typical_p, p.typical_p),
        (p.epsilon_cutoff, keep_epsilon, p.epsilon_cutoff),
        (p.eta_cutoff, keep_eta, p.eta_cutoff),
    )
    return [(keep, amount) for is_asked, keep, amount in ours if is_asked]


def _guarded(processor: LogitsProcessor) -> LogitsProcessor:
    """A processor of the user's with a copy of the ids. Raises ValueError for anything but logits [n_vocab]."""

    def process(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        result = processor(ids.copy(), scores)
        if np.shape(result) != scores.shape:
            raise ValueError(
                f"logits_processors: {processor!r} returned shape {np.shape(result)}; it must return logits "
                f"[{len(scores)}]"
            )
        return np.asarray(result, np.float32)

    return process


# --- penalties and bans ----------------------------------------------------------------------------------------------


def add_bias(ids: np.ndarray, scores: np.ndarray, bias: Mapping[int, float]) -> np.ndarray:
    """Add a number to the logits of some tokens. Source: OpenAI's API, `logit_bias`."""
    scores[np.fromiter(bias.keys(), np.int64)] += np.fromiter(bias.values(), np.float32)
    return scores


def penalize_repetition(ids: np.ndarray, scores: np.ndarray, penalty: float) -> np.ndarray:
    """Divide the logits of tokens in the text by a penalty, or multiply those below 0.

    As in transformers, the prompt counts too. Source: Keskar et al. 2019 (CTRL), section 4.1.
    """
    found = scores[ids]
    scores[ids] = np.where(found < 0, found * np.float32(penalty), found / np.float32(penalty))
    return scores


def penalize_presence_and_frequency(
    ids: np.ndarray, scores: np.ndarray, n_prompt: int, presence: float, frequency: float
) -> np.ndarray:
    """Subtract `presence`, and `frequency` for each occurrence, from tokens after the first n_prompt ids.

    Source: OpenAI's API.
    """
    found, counts = np.unique(ids[n_prompt:], return_counts=True)
    scores[found] -= (presence + frequency * counts).astype(np.float32)
    return scores


def penalize_continuation(
    ids: np.ndarray, scores: np.ndarray, multiplier: float, base: float, allowed_length: int, breakers: frozenset[int]
) -> np.ndarray:
    """DRY: subtract multiplier * base ** (n - allowed_length) from tokens that would continue a repeated sequence.

    n is the largest number of tokens, none of them in breakers, that end the text and also stand before an earlier
    occurrence of the token. There is no penalty for n < allowed_length, nor for breakers. Source: p-e-w 2024,
    text-generation-webui pull request 5677.
    """
    if not len(ids) or ids[-1] in breakers:
        return scores
    ends = np.flatnonzero(ids[:-1] == ids[-1])  # earlier occurrences of the last token
    longest = dict.fromkeys(ids[ends + 1].tolist(), 1)
    for n in range(1, len(ids)):
        if ids[-1 - n] in breakers:
            break
        ends = ends[ends >= n]
        ends = ends[ids[ends - n] == ids[-1 - n]]
        if not len(ends):
            break
        longest.update(dict.fromkeys(ids[ends + 1].tolist(), n + 1))
    for token, n in longest.items():
        if n >= allowed_length and token not in breakers:
            scores[token] -= _dry_penalty(multiplier, base, n - allowed_length)
    return scores


@lru_cache(maxsize=4096)
def _dry_penalty(multiplier: float, base: float, n: int) -> np.floating[Any]:
    """multiplier * base ** n as float32, at most e^69; kept, as many tokens have one length."""
    penalty: np.floating[Any] = np.float32(exp(min(_MOST, log(multiplier) + n * log(base))))
    return penalty


def ban_repeated_ngrams(ids: np.ndarray, scores: np.ndarray, size: int) -> np.ndarray:
    """Ban tokens that would complete an n-gram of `size` tokens that the text has. Source: Paulus et al. 2017, 2.5."""
    n_places = len(ids) - size + 1
    matches = np.ones(max(0, n_places), bool)
    for i in range(size - 1 if n_places > 0 else 0):
        matches &= ids[i : i + n_places] == ids[n_places + i]
    scores[ids[size - 1 :][matches]] = -np.inf
    return scores


class BannedWords:
    """Bans the last token of a word where the text ends with the others. Source: transformers' `bad_words_ids`."""

    def __init__(self, words: Collection[tuple[int, ...]]) -> None:
        """Index words of one token or more by the token before their last, so that there may be many."""
        self._single = np.array(sorted({word[0] for word in words if len(word) == 1}), np.int64)
        self._after: dict[int, list[tuple[int, ...]]] = {}
        for word in words:
            if len(word) > 1:
                self._after.setdefault(word[-2], []).append(word)

    def __call__(self, ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        scores[self._single] = -np.inf
        for word in self._after.get(int(ids[-1]), ()):
            if tuple(ids[1 - len(word) :].tolist()) == word[:-1]:
                scores[word[-1]] = -np.inf
        return scores


def ban_ends(ids: np.ndarray, scores: np.ndarray, n_least: int, ends: list[int]) -> np.ndarray:
    """Ban the tokens that end a text while it has fewer than n_least ids."""
    if len(ids) < n_least:
        scores[ends] = -np.inf
    return scores


# --- truncations -----------------------------------------------------------------------------------------------------


def entropy(scores: np.ndarray) -> float:
    """-sum p log p of p = softmax(scores), in nats."""
    scores = scores[scores > -np.inf]
    return _entropy(softmax(scores), log_softmax(scores))


def _entropy(p: np.ndarray, log_p: np.ndarray) -> float:
    return -float((p * log_p).sum(dtype=np.float64))


def _reaching(order: np.ndarray, weights: np.ndarray, goal: float) -> np.ndarray:
    """Keep the fewest tokens, those of the smallest `order` [n], whose weights [n] add up to the goal: bool [n].

    Tokens of equal order are kept together, and added up by their ids. As a rule few are needed: sort 8 times as many
    until they are enough.
    """
    n, n_sorted = len(order), 64
    while True:
        n_sorted = min(8 * n_sorted, n)
        first = np.flatnonzero(order <= np.partition(order, n_sorted - 1)[n_sorted - 1])
        first = first[np.argsort(order[first], kind="stable")]
        place = int(np.searchsorted(np.cumsum(weights[first], dtype=np.float64), goal))
        if place < len(first) or n_sorted == n:
            kept: np.ndarray = order <= order[first[min(place, len(first) - 1)]]
            return kept


def keep_top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Keep the k largest scores, and those equal to the last of them. Source: Fan et al. 2018."""
    if k >= len(scores):
        return np.ones(len(scores), bool)
    kept: np.ndarray = scores >= np.partition(scores, -k)[-k]
    return kept


def keep_top_p(scores: np.ndarray, mass: float) -> np.ndarray:
    """Keep the likeliest tokens up to the one with which they reach `mass`. Source: Holtzman et al. 2020."""
    p = softmax(scores)
    return _reaching(-p, p, mass)


def keep_min_p(scores: np.ndarray, share: float) -> np.ndarray:
    """Keep tokens at least `share` times as likely as the likeliest. Source: Nguyen et al. 2024, arXiv 2407.01082."""
    kept: np.ndarray = scores >= scores.max() + np.float32(log(share))
    return kept


def keep_typical_p(scores: np.ndarray, mass: float) -> np.ndarray:
    """Keep tokens whose surprisal is nearest to the entropy, until they reach `mass`. Source: Meister et al. 2022."""
    p, log_p = softmax(scores), log_softmax(scores)
    nats = _entropy(p, log_p) if scores.min() > -np.inf else entropy(scores)  # the same bits if nothing is banned
    return _reaching(np.abs(log_p + np.float32(nats)), p, mass)


def keep_epsilon(scores: np.ndarray, epsilon: float) -> np.ndarray:
    """Keep tokens of probability `epsilon` or more, and the likeliest. Source: Hewitt et al. 2022, section 4.1."""
    p = softmax(scores)
    kept: np.ndarray = p >= min(epsilon, p.max())
    return kept


def keep_eta(scores: np.ndarray, epsilon: float) -> np.ndarray:
    """Keep tokens of at least min(epsilon, sqrt(epsilon) * e^-entropy). Source: Hewitt et al. 2022, section 4.2."""
    return keep_epsilon(scores, min(epsilon, math.sqrt(epsilon) * exp(-entropy(scores))))


def keep_unsurprising(scores: np.ndarray, bits: float) -> np.ndarray:
    """Keep tokens of a surprisal of at most so many bits, and the likeliest. Source: Basu et al. 2021 (Mirostat)."""
    return keep_epsilon(scores, power(2, -max(bits, 0)))
