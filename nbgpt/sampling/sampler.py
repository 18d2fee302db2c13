"""From logits to a token id: logits processors, temperature, truncations and one draw, for one request."""

from __future__ import annotations

import numpy as np

from .logits_processors import BANS, keep_top_k, keep_top_p, keep_unsurprising, processors_of, truncations_of
from .params import SamplingParams
from .portable import LN_2, exp_array, log, softmax

_STEEPEST = 1e30  # largest factor of a tiny temperature: no difference of logits becomes infinite


class Sampler:
    """Chooses the token ids of one request.

    Logits processors change the logits, the temperature divides them, truncations (or Mirostat 2 in their place) drop
    unlikely tokens, and one of the others is drawn; logits_processors.py has the order of both lists. Temperature 0
    takes the largest logit that the processors leave, the first among equals.
    """

    def __init__(self, params: SamplingParams, n_prompt: int, absent_ids: np.ndarray | None = None) -> None:
        """Prepare the processors and truncations that the request needs.

        Args:
            params: parameters of the request.
            n_prompt: number of prompt ids at the beginning of the ids given to `choose`.
            absent_ids: int64 [n], ids of the model that have no token and are never chosen.
        """
        self.params = params
        self._n_prompt = n_prompt
        self._absent_ids = np.empty(0, np.int64) if absent_ids is None else absent_ids
        self._processors = processors_of(params, n_prompt)
        self._truncations = truncations_of(params)
        self._max_bits = 2 * params.mirostat_tau  # mu of Basu et al.
        self._n_held = params.min_tokens if params.stop_ids else 0  # number of tokens before a stop is allowed
        is_truncated = any(keep not in (keep_top_k, keep_top_p) for keep, _ in self._truncations) or params.mirostat_tau
        is_processed = len(self._processors) > bool(self._n_held)  # by more than the ban of stops
        self._is_plain = not (is_truncated or is_processed)

    def is_plain(self, position: int) -> bool:
        """True if compiled code can draw new token number `position`; `choose` must otherwise."""
        return self._is_plain and position >= self._n_held

    def choose(self, ids: np.ndarray, logits: np.ndarray) -> int:
        """Choose the next token.

        Args:
            ids: int32 [n], prompt and new tokens so far.
            logits: float32 [n_vocab], the model's after these ids; changed in place.

        Returns:
            The id of the next token.

        Raises:
            ValueError: every token is banned, or a logits processor returns something else than logits.
        """
        scores = logits
        scores[self._absent_ids] = -np.inf
        for process in self._processors:
            scores = process(ids, scores)
        top = scores.max()
        if not -np.inf < top < np.inf:
            what = "every token is banned" if top == -np.inf else f"the largest logit is {top}"
            raise ValueError(f"{what}: check {BANS}, which together may leave nothing")
        temperature, *_, uniform = self.params.draw_params(len(ids) - self._n_prompt)
        if temperature == 0:
            return int(scores.argmax())
        with np.errstate(over="ignore"):  # so far below the top, -inf is as good
            scores = (scores - top) * np.float32(min(1 / temperature, _STEEPEST))
        return self._mirostat(scores, uniform) if self.params.mirostat_tau else self._truncate(scores, uniform)

    def _truncate(self, scores: np.ndarray, uniform: float) -> int:
        """Drop what the truncations do not keep, and draw from what is left."""
        left = np.arange(len(scores))
        for keep, amount in self._truncations:
            kept = keep(scores, amount)
            left, scores = left[kept], scores[kept]
        return int(left[_draw(exp_array(scores - scores.max()), uniform)])

    def _mirostat(self, scores: np.ndarray, uniform: float) -> int:
        """Mirostat 2: draw from tokens below a bound of surprisal, and move the bound by that of the drawn token.

        Surprisal is in bits; that of the drawn token is taken among the kept ones. Source: Basu et al. 2021, "Mirostat:
        a neural text decoding algorithm that directly controls perplexity", and version 2 in the authors' code.
        """
        left = np.flatnonzero(keep_unsurprising(scores, self._max_bits))
        p = softmax(scores[left])
        drawn = _draw(p, uniform)
        self._max_bits -= self.params.mirostat_eta * (-log(p[drawn]) / LN_2 - self.params.mirostat_tau)
        return int(left[drawn])


def _draw(weights: np.ndarray, uniform: float) -> int:
    """Index at which the running sum of the weights passes uniform * their sum, as in kernels/draw.py."""
    sums = np.cumsum(weights, dtype=np.float64)
    return int(np.searchsorted(sums, min(uniform * sums[-1], np.nextafter(sums[-1], 0)), side="right"))
