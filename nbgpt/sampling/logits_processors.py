"""What options do to the scores of the tokens: penalties and bans change them, truncations say which to keep.

scores: float32 [n], logits at first. ids: int32 [n_text], the text so far, the prompt first. Functions that return
nothing change the scores in place; those that return bool [n] leave them and say which tokens stay. Nothing is sorted
that a partition will do for, as this runs once a token.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

_MOST = 69.0  # e^69 is as good as a ban, and far from the end of float32


# --- penalties and bans ----------------------------------------------------------------------------------------------


def add_bias(scores: np.ndarray, bias: Mapping[int, float]) -> None:
    """Add a number to the logits of some tokens. Source: OpenAI's API, `logit_bias`."""
    scores[np.fromiter(bias.keys(), np.int64)] += np.fromiter(bias.values(), np.float32)


def penalize_repetition(scores: np.ndarray, ids: np.ndarray, penalty: float) -> None:
    """Divide the logits of tokens in the text, those below 0 multiply. Source: Keskar et al. 2019 (CTRL), section 4.1.

    As in transformers, prompt and new tokens count alike, and signs are told apart.
    """
    found = scores[ids]
    scores[ids] = np.where(found < 0, found * np.float32(penalty), found / np.float32(penalty))


def penalize_presence_and_frequency(scores: np.ndarray, new: np.ndarray, presence: float, frequency: float) -> None:
    """Subtract `presence`, and `frequency` for each time, from tokens that were written. Source: OpenAI's API.

    new: int32 [n_new], the ids written so far; those of the prompt do not count.
    """
    ids, counts = np.unique(new, return_counts=True)
    scores[ids] -= (presence + frequency * counts).astype(np.float32)


def penalize_continuing(
    scores: np.ndarray, ids: np.ndarray, multiplier: float, base: float, allowed_length: int, breakers: frozenset[int]
) -> None:
    """DRY: subtract multiplier * base ** (n - allowed_length) from what would go on with n tokens said before.

    n, the longest way back over which the end of the text equals an earlier place, does not reach past a token in
    breakers; n below allowed_length is free. Source: p-e-w 2024, text-generation-webui pull request 5677.
    """
    if not len(ids) or ids[-1] in breakers:
        return
    ends = np.flatnonzero(ids[:-1] == ids[-1])  # where the last token stood before
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
            penalty = np.exp(min(_MOST, np.log(multiplier) + (n - allowed_length) * np.log(base)))
            scores[token] -= np.float32(penalty)


def ban_repeated_ngrams(scores: np.ndarray, ids: np.ndarray, size: int) -> None:
    """Ban what would complete `size` tokens that stand in the text. Source: Paulus et al. 2017, section 2.5."""
    n_places = len(ids) - size + 1
    matches = np.ones(max(0, n_places), bool)
    for i in range(size - 1 if n_places > 0 else 0):
        matches &= ids[i : i + n_places] == ids[n_places + i]
    scores[ids[size - 1 :][matches]] = -np.inf


class BannedWords:
    """Bans the last token of a word, if the text ends with those before it. Source: transformers' `bad_words_ids`."""

    def __init__(self, words: Collection[tuple[int, ...]]) -> None:
        """Take words of one token or more; they wait by the token before their last, so that there may be many."""
        self._single = np.array(sorted({word[0] for word in words if len(word) == 1}), np.int64)
        self._after: dict[int, list[tuple[int, ...]]] = {}
        for word in words:
            if len(word) > 1:
                self._after.setdefault(word[-2], []).append(word)

    def __call__(self, scores: np.ndarray, ids: np.ndarray) -> None:
        scores[self._single] = -np.inf
        for word in self._after.get(int(ids[-1]), ()):
            if tuple(ids[1 - len(word) :].tolist()) == word[:-1]:
                scores[word[-1]] = -np.inf


# --- truncations -----------------------------------------------------------------------------------------------------


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities float32 [n]."""
    weights: np.ndarray = np.exp(scores - scores.max())
    weights /= weights.sum(dtype=np.float64)
    return weights


def entropy(p: np.ndarray) -> float:
    """-sum p log p, in nats."""
    p = p[p > 0]
    return -float(np.dot(p, np.log(p)))


def _reaching(order: np.ndarray, weights: np.ndarray, goal: float) -> np.ndarray:
    """The fewest, those with the smallest `order` [n], whose weights [n] add up to the goal -> bool [n].

    Equals are kept together. Few are enough as a rule: more and more are sorted until they are.
    """
    n, n_sorted = len(order), 64
    while True:
        n_sorted = min(8 * n_sorted, n)
        first = np.argpartition(order, n_sorted - 1)[:n_sorted] if n_sorted < n else np.arange(n)
        first = first[np.argsort(order[first])]
        place = int(np.searchsorted(np.cumsum(weights[first], dtype=np.float64), goal))
        if place < n_sorted or n_sorted == n:
            kept: np.ndarray = order <= order[first[min(place, n_sorted - 1)]]
            return kept


def keep_top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """The k largest, and what equals the last of them. Source: Fan et al. 2018."""
    if k >= len(scores):
        return np.ones(len(scores), bool)
    kept: np.ndarray = scores >= np.partition(scores, -k)[-k]
    return kept


def keep_top_p(scores: np.ndarray, mass: float) -> np.ndarray:
    """The likeliest that reach `mass` together, with the one that crosses it. Source: Holtzman et al. 2020."""
    p = softmax(scores)
    return _reaching(-p, p, mass)


def keep_min_p(scores: np.ndarray, share: float) -> np.ndarray:
    """Those at least `share` times as likely as the likeliest. Source: Nguyen et al. 2024, arXiv 2407.01082."""
    kept: np.ndarray = scores >= scores.max() + np.float32(np.log(share))
    return kept


def keep_typical_p(scores: np.ndarray, mass: float) -> np.ndarray:
    """Those whose surprise is nearest to the entropy, until they reach `mass`. Source: Meister et al. 2022."""
    p = softmax(scores)
    with np.errstate(divide="ignore"):
        return _reaching(np.abs(-np.log(p) - entropy(p)), p, mass)


def keep_epsilon(scores: np.ndarray, epsilon: float) -> np.ndarray:
    """Those of probability `epsilon` or more, and the likeliest. Source: Hewitt et al. 2022, section 4.1."""
    p = softmax(scores)
    kept: np.ndarray = p >= min(epsilon, p.max())
    return kept


def keep_eta(scores: np.ndarray, epsilon: float) -> np.ndarray:
    """Those of min(epsilon, sqrt(epsilon) * e^-entropy) or more. Source: Hewitt et al. 2022, section 4.2."""
    return keep_epsilon(scores, min(epsilon, epsilon**0.5 * np.exp(-entropy(softmax(scores)))))


def keep_unsurprising(scores: np.ndarray, bits: float) -> np.ndarray:
    """Those of a surprise of at most so many bits, and the likeliest. Source: Basu et al. 2021 (Mirostat)."""
    return keep_epsilon(scores, 2.0 ** -max(bits, 0))
