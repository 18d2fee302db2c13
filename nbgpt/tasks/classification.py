"""Labels for texts, by a model fine-tuned as transformers' GPT2ForSequenceClassification."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..engine.engine import Engine
from ..operations import sigmoid, softmax
from ..text.prompts import Text
from ..tokenizer import Tokenizer
from ..weights import Weights
from .embeddings import final_states, ln_f
from .scoring import encode_batch


@dataclass(frozen=True)
class Classification:
    """The labels of one text with their probabilities."""

    logits: np.ndarray  # float32 [n_labels]
    probabilities: dict[str, float]  # by label, in the order of the logits; the sum is 1 unless labels are independent

    @property
    def label(self) -> str:
        """The likeliest label."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


def classify(
    engine: Engine, tokenizer: Tokenizer, texts: Sequence[Text], *, bos: bool | None = None
) -> list[Classification]:
    """The label of each text: `score.weight` times the final hidden state of its last token.

    Probabilities are the softmax of the logits, as in transformers' pipeline. A model with one label, or with
    independent labels (`problem_type` "multi_label_classification"), has the sigmoid of each logit instead. Labels are
    named by the checkpoint's `id2label`, else LABEL_0, LABEL_1, ...

    Args:
        engine: runs the model.
        tokenizer: the model's tokenizer.
        texts: each of at most n_ctx tokens.
        bos: begin with <|endoftext|>; None: as the model's file says.

    Returns:
        One classification a text.

    Raises:
        ValueError: the model has no `score.weight`, or a text does not fit the context.
        TypeError: texts is a text instead of a list.
    """
    config, weights = engine.config, engine.weights
    if not config.n_labels:
        raise ValueError(
            f"{weights.name} has no classification head (score.weight); `rank` chooses between texts with any model, "
            "and a fine-tune saved as GPT2ForSequenceClassification has a head"
        )
    to_probabilities = sigmoid if config.multi_label or config.n_labels == 1 else softmax
    names, head = labels(weights), weights.floats("score.weight")[:, : config.n_embd]
    batch = encode_batch(engine, tokenizer, texts, bos, room=config.n_ctx)
    found = []
    for states in final_states(engine, batch):
        logits = head @ ln_f(weights, states[-1:])[0]
        probabilities = to_probabilities(logits.astype(np.float64)).tolist()
        found.append(Classification(logits, dict(zip(names, probabilities, strict=True))))
    return found


def labels(weights: Weights) -> list[str]:
    """Names of a classifier's labels in the order of its logits; empty for other models."""
    names: list[str] = json.loads(weights.metadata.get("labels", "[]"))
    return names or [f"LABEL_{number}" for number in range(weights.config.n_labels)]
