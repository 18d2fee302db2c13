"""Labels for texts, by a model that was fine-tuned for it: transformers' GPT2ForSequenceClassification."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .embedding import final_states, ln_f
from .scoring import encode_batch
from .weights import Weights

if TYPE_CHECKING:
    from .text import Model


@dataclass(frozen=True)
class Classification:
    """What a classifier says of one text."""

    logits: np.ndarray  # float32 [n_labels]
    probabilities: dict[str, float]  # by label, in the order of the logits

    @property
    def label(self) -> str:
        """The likeliest."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


def classify(model: Model, texts: Sequence[str], *, bos: bool | None = None) -> list[Classification]:
    """The label of each text: `score.weight` applied to the final hidden state of its last token.

    Probabilities are the softmax of the logits, or for a model of one label its sigmoid, as in transformers' pipeline;
    where several labels may hold at once, take the sigmoid of `logits`. Labels have the names of the checkpoint's
    `id2label`, else LABEL_0, LABEL_1, ... bos: as for `Model.stream`.
    Raises ValueError for a model without `score.weight` and for a text that is longer than the context; TypeError for
    a text in place of the list.
    """
    config, weights = model.config, model.weights
    if not config.n_labels:
        raise ValueError(
            f"{model.name} has no classification head (score.weight); `rank` chooses between texts with any model, and "
            "a fine-tune saved as GPT2ForSequenceClassification has a head"
        )
    names, head = labels(weights), weights.floats("score.weight")[:, : config.n_embd]
    ids = encode_batch(model, texts, bos, room=config.n_ctx)
    found = []
    for states in final_states(model, ids):
        logits = head @ ln_f(weights, states[-1:])[0]
        found.append(Classification(logits, dict(zip(names, _probabilities(logits).tolist(), strict=True))))
    return found


def labels(weights: Weights) -> list[str]:
    """Names of a classifier's labels in the order of its logits; none for another model."""
    names: list[str] = json.loads(weights.metadata.get("labels", "[]"))
    return names or [f"LABEL_{number}" for number in range(weights.config.n_labels)]


def _probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax; a logit that is alone stands against another that is zero, which is its sigmoid."""
    contest = np.append(logits, 0.0) if len(logits) == 1 else logits.astype(np.float64)
    shares = np.exp(contest - contest.max())
    probabilities: np.ndarray = shares / shares.sum()
    return probabilities[: len(logits)]
