"""From logits to an id, for one sample of a text: the order in which everything that was asked for is done."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import logits_processors as do
from .params import LogitsProcessor, PerText, SamplingParams

_STEEPEST = 1e30  # what a temperature of almost 0 multiplies by: no difference of logits becomes infinite

_BANS = "logit_bias, bad_words, no_repeat_ngram_size, min_tokens, choice, regex, json_schema and logits_processors"


class Sampler:
    """Chooses the ids of one sample.

    The order is that of transformers, which lacks what is in brackets: logit_bias, repetition_penalty,
    [presence_penalty and frequency_penalty, DRY], no_repeat_ngram_size, bad_words, min_tokens, logits_processors;
    temperature; top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff [or Mirostat 2 instead of these six]; then
    one draw. Temperature 0 takes the largest score that the first eight have left, the first among equals.
    """

    def __init__(self, sampling: SamplingParams, sample: int, n_prompt: int, ends: frozenset[int]) -> None:
        """Take the number of the sample, how many ids were not written but given, and the ids that end the text."""
        self.sampling = s = sampling
        self.sample = sample
        self._n_prompt = n_prompt
        self._ends = sorted(ends)
        self._ban_words = do.BannedWords(s.bad_words)
        self._processors = [_for_text(processor, n_prompt) for processor in s.logits_processors]
        self._most_bits = 2 * s.mirostat_tau  # what Basu et al. call mu
        truncations = (
            (s.top_k, do.keep_top_k, s.top_k),
            (s.top_p < 1, do.keep_top_p, s.top_p),
            (s.min_p, do.keep_min_p, s.min_p),
            (s.typical_p < 1, do.keep_typical_p, s.typical_p),
            (s.epsilon_cutoff, do.keep_epsilon, s.epsilon_cutoff),
            (s.eta_cutoff, do.keep_eta, s.eta_cutoff),
        )
        self._truncations: list[tuple[Any, float]] = [(keep, amount) for asked, keep, amount in truncations if asked]

    def options(self, position: int) -> tuple[float, float, float, float] | None:
        """What compiled code needs to draw new token number `position`; None if it cannot and `choose` must."""
        s = self.sampling
        if s.is_plain and (position >= s.min_tokens or not self._ends):
            return s.options(self.sample, position)
        return None

    def choose(self, ids: np.ndarray, logits: np.ndarray) -> int:
        """The id that follows ids int32 [n], from logits float32 [n_vocab], which are changed.

        Raises ValueError if there is nothing to choose from.
        """
        scores = self._process(ids, logits)
        top = scores.max()
        if not -np.inf < top < np.inf:
            what = "every token is banned" if top == -np.inf else f"the largest logit is {top}"
            raise ValueError(f"{what}: check {_BANS}, which together may leave nothing")
        temperature, *_, uniform = self.sampling.options(self.sample, len(ids) - self._n_prompt)
        if temperature == 0:
            return int(scores.argmax())
        with np.errstate(over="ignore"):  # what is so far below the top is as good as banned
            scores = (scores - top) * np.float32(min(1 / temperature, _STEEPEST))
        return self._mirostat(scores, uniform) if self.sampling.mirostat_tau else self._draw(scores, uniform)

    def _process(self, ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        s, new = self.sampling, ids[self._n_prompt :]
        if s.logit_bias:
            do.add_bias(scores, s.logit_bias)
        if s.repetition_penalty != 1:
            do.penalize_repetition(scores, ids, s.repetition_penalty)
        if s.presence_penalty or s.frequency_penalty:
            do.penalize_presence_and_frequency(scores, new, s.presence_penalty, s.frequency_penalty)
        if s.dry_multiplier:
            do.penalize_continuing(
                scores, ids, s.dry_multiplier, s.dry_base, s.dry_allowed_length, s.dry_sequence_breakers
            )
        if s.no_repeat_ngram_size:
            do.ban_repeated_ngrams(scores, ids, s.no_repeat_ngram_size)
        if s.bad_words:
            self._ban_words(scores, ids)
        if len(new) < s.min_tokens:
            scores[self._ends] = -np.inf
        for processor in self._processors:
            scores = _checked(processor(ids.copy(), scores), processor, len(scores))
        return scores

    def _draw(self, scores: np.ndarray, uniform: float) -> int:
        left = np.arange(len(scores))
        for keep, amount in self._truncations:
            kept = keep(scores, amount)
            left, scores = left[kept], scores[kept]
        return int(left[_draw(np.exp(scores - scores.max()), uniform)])

    def _mirostat(self, scores: np.ndarray, uniform: float) -> int:
        """Mirostat 2: keep what is not too surprising, and move that bound by how surprising the drawn token is.

        Source: Basu et al. 2021, "Mirostat: a neural text decoding algorithm that directly controls perplexity", and
        version 2 in the authors' code. Surprise is in bits and, once drawn, that among the kept.
        """
        s = self.sampling
        left = np.flatnonzero(do.keep_unsurprising(scores, self._most_bits))
        p = do.softmax(scores[left])
        place = _draw(p, uniform)
        self._most_bits -= s.mirostat_eta * (-float(np.log2(p[place])) - s.mirostat_tau)
        return int(left[place])


def _draw(weights: np.ndarray, uniform: float) -> int:
    """The place at which the running sum of the weights passes uniform * their sum, as in kernels/draw.py."""
    sums = np.cumsum(weights, dtype=np.float64)
    return int(np.searchsorted(sums, min(uniform * sums[-1], np.nextafter(sums[-1], 0)), side="right"))


def _for_text(processor: LogitsProcessor | PerText, n_given: int) -> LogitsProcessor:
    return processor.for_text(n_given) if isinstance(processor, PerText) else processor


def _checked(scores: Any, processor: object, n_vocab: int) -> np.ndarray:
    """What a callable of the user's returned, as float32 [n_vocab]. Raises ValueError if it is not that."""
    shape = np.shape(scores)
    if shape != (n_vocab,):
        raise ValueError(f"logits_processors: {processor!r} returned shape {shape}; it must return logits [{n_vocab}]")
    return np.asarray(scores, np.float32)
