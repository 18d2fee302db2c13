"""Beam search: the likeliest whole continuations. Ids in, ids and scores out; scores are those of transformers.

Each step extends every beam by every token and keeps the best extensions; those that end become hypotheses. Beams share
the pages of their common past.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

import numpy as np

from ..engine.engine import Engine
from ..engine.kv_cache import Sequence
from ..engine.model_runner import MAX_ROWS
from ..sampling.portable import largest, log_softmax, power
from ..validation import check

Process = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(ids int32 [n] with the prompt, log-probabilities float32 [n_vocab] of the next id) -> new log-probabilities."""
EarlyStopping = bool | Literal["never"]
_MAX_PENALTY = 10  # powers of a length must stay numbers


@dataclass(frozen=True)
class Hypothesis:
    """A continuation of the prompt."""

    ids: list[int]  # without the end of text
    score: float  # sum of log-probabilities / length ** length_penalty; an end of text counts in both
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True, eq=False)
class _Beam:
    ids: list[int]  # prompt and continuation
    log_prob: float  # of the continuation
    past: Sequence  # all ids but the last


@dataclass(frozen=True)
class _Step:
    beam: _Beam
    token: int  # that follows it
    log_prob: float  # of the continuation with the token


def beam_search(
    engine: Engine,
    ids: list[int],
    num_beams: int,
    max_tokens: int,
    *,
    num_return: int = 1,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
    eos_ids: Collection[int] = (),
    process: Process | None = None,
) -> list[Hypothesis]:
    """The num_return best continuations of ids that num_beams beams find, best first; fewer if there are no more.

    length_penalty: above 0 favours long continuations, below 0 short ones.
    early_stopping: when num_beams continuations have ended, stop at once (True), or when the best beam would score no
    better than the worst of them at its present length (False) or at any length ("never"). One beam is greedy.
    process: changes the log-probabilities of the ids after a beam; ids at -inf are never chosen.

    Source: `_beam_search` of transformers 5 (generation/utils.py), for one prompt and without sampling. Raises
    ValueError that names the parameter, its value and what is allowed.
    """
    engine.check_room(ids, max_tokens)
    _check(num_beams, num_return, length_penalty, early_stopping)
    beams, found = [_Beam(ids, 0.0, Sequence())], list[Hypothesis]()
    try:
        if len(ids) > 1:
            engine.append(beams[0].past, ids[:-1])
        for length in range(1, max_tokens + 1):
            steps = _best_steps(engine, beams, 2 * num_beams, process)
            last = length == max_tokens
            ended = [step for step in steps[:num_beams] if last or step.token in eos_ids]
            found += [_hypothesis(step, len(ids), power(length, length_penalty), eos_ids) for step in ended]
            found = sorted(found, key=lambda hypothesis: -hypothesis.score)[:num_beams]
            beams = _advance(
                engine, beams, [step for step in steps if not last and step.token not in eos_ids][:num_beams]
            )
            if not beams:
                break
            if len(found) == num_beams:
                longest = max_tokens if early_stopping == "never" and length_penalty > 0 else length
                hope = beams[0].log_prob / power(longest, length_penalty)
                if early_stopping is True or num_beams == 1 or hope <= found[-1].score:
                    break
    finally:
        for beam in beams:
            engine.free(beam.past)
    return found[:num_return]


def _check(num_beams: int, num_return: int, length_penalty: float, early_stopping: EarlyStopping) -> None:
    check("num_beams", num_beams, Integral, lambda n: 1 <= n <= MAX_ROWS, f"from 1 to {MAX_ROWS}")
    allowed = f"from 1 to num_beams, {num_beams}"
    check("num_return", num_return, Integral, lambda n: 1 <= n <= num_beams, allowed)
    allowed = f"from -{_MAX_PENALTY} to {_MAX_PENALTY}"
    check("length_penalty", length_penalty, Real, lambda x: abs(x) <= _MAX_PENALTY, allowed)
    if not isinstance(early_stopping, bool) and early_stopping != "never":
        raise ValueError(f"early_stopping is {early_stopping!r}; choose False, True or 'never'")


def _best_steps(engine: Engine, beams: list[_Beam], n: int, process: Process | None) -> list[_Step]:
    """The n best one-token extensions of all beams, best first. Appends each beam's last id to its past."""
    logits, _ = engine.outputs([beam.ids[-1] for beam in beams], [beam.past for beam in beams], range(len(beams)))
    logits[:, engine.absent_ids] = -np.inf
    steps = []
    for beam, row in zip(beams, logits, strict=True):
        log_probs = log_softmax(row)
        if process:
            log_probs = process(np.array(beam.ids, np.int32), log_probs)
        for token in largest(log_probs, n).tolist():
            if log_probs[token] > -np.inf:
                steps.append(_Step(beam, token, beam.log_prob + float(log_probs[token])))
    return sorted(steps, key=lambda step: -step.log_prob)[:n]


def _hypothesis(step: _Step, n_prompt: int, divisor: float, eos_ids: Collection[int]) -> Hypothesis:
    ids, score = step.beam.ids[n_prompt:], step.log_prob / divisor
    return Hypothesis(ids, score, "stop") if step.token in eos_ids else Hypothesis([*ids, step.token], score, "length")


def _advance(engine: Engine, beams: list[_Beam], steps: list[_Step]) -> list[_Beam]:
    """The beams after these steps. The first step of a beam takes over its past; others get forks of it."""
    pasts = {beam: beam.past for beam in beams}
    advanced = []
    for step in steps:
        past = pasts.pop(step.beam, None) or engine.fork(step.beam.past, step.beam.past.length)
        advanced.append(_Beam([*step.beam.ids, step.token], step.log_prob, past))
    for past in pasts.values():
        engine.free(past)
    return advanced
