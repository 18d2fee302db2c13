"""Labels for texts, by a model that was fine-tuned for it: transformers' GPT2ForSequenceClassification."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..weights import Weights
from .embeddings import final_states, ln_f
from .scoring import encode_batch

if TYPE_CHECKING:
    from ..model import Model


@dataclass(frozen=True)
class Classification:
    """What a classifier says of one text."""

    logits: np.ndarray  # float32 [n_labels]
    probabilities: dict[str, float]  # by label, in the order of the logits; they add up to 1 if only one label can hold

    @property
    def label(self) -> str:
        """The likeliest."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


def classify(model: Model, texts: Sequence[str], *, bos: bool | None = None) -> list[Classification]:
    """The label of each text: `score.weight` applied to the final hidden state of its last token.

    Probabilities are the softmax of the logits, as in transformers' pipeline; or, for a model of one label and where
    any number of labels may hold at once (`problem_type` "multi_label_classification"), the sigmoid of each. Labels
    have the names of the checkpoint's `id2label`, else LABEL_0, LABEL_1, ... bos: as for `Model.stream`.
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
        probabilities = _sigmoid(logits) if config.multi_label or config.n_labels == 1 else _softmax(logits)
        found.append(Classification(logits, dict(zip(names, probabilities.tolist(), strict=True))))
    return found


def labels(weights: Weights) -> list[str]:
    """Names of a classifier's labels in the order of its logits; none for another model."""
    names: list[str] = json.loads(weights.metadata.get("labels", "[]"))
    return names or [f"LABEL_{number}" for number in range(weights.config.n_labels)]


def _softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits.astype(np.float64) - logits.max())
    probabilities: np.ndarray = shares / shares.sum()
    return probabilities


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    """By the hyperbolic tangent, which no logit makes overflow."""
    probabilities: np.ndarray = 0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64))
    return probabilities
