"""Labels for texts, by a GPT2ForSequenceClassification of transformers or by a head of `train_classifier`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..engine.engine import Engine
from ..operations import sigmoid, softmax
from ..text.prompts import Text
from ..tokenizer import Tokenizer
from ..weights import ClassifierHead
from .features import encode_truncated, pooled
from .scoring import encode_batch, listed


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
    """The label of each text: `score.weight` times the final hidden state of its last token, or what a head says.

    Probabilities are the softmax of the logits, as in transformers' pipeline. A model with one label, or with
    independent labels (`problem_type` "multi_label_classification"), has the sigmoid of each logit instead. Labels are
    named by the checkpoint's `id2label`, else LABEL_0, LABEL_1, ...

    Args:
        engine: runs the model.
        tokenizer: the model's tokenizer.
        texts: each of at most n_ctx tokens; a head of `train_classifier` reads the end of longer ones.
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
            "a fine-tune saved as GPT2ForSequenceClassification has a head, and `train_classifier` makes one"
        )
    # Each text is multiplied by itself, so that its bits do not depend on the batch.
    if weights.head is not None:
        logits = head_logits(engine, tokenizer, weights.head, texts, bos)
    else:
        batch = encode_batch(engine, tokenizer, texts, bos, room=config.n_ctx)
        states = pooled(engine, batch, [config.n_layer], "last", tokenizer.bos_id)[0]
        score = weights.floats("score.weight")[:, : config.n_embd]
        logits = np.array([score @ state for state in states]).reshape(-1, config.n_labels)
    names, odds = weights.labels, probabilities(logits, config.multi_label)
    return [
        Classification(one.astype(np.float32), dict(zip(names, likely.tolist(), strict=True)))
        for one, likely in zip(logits, odds, strict=True)
    ]


def head_logits(
    engine: Engine, tokenizer: Tokenizer, head: ClassifierHead, texts: Sequence[Text], bos: bool | None
) -> np.ndarray:
    """Logits of a trained head for each text, float64 [n_texts, n_labels]; of long texts the end is read."""
    batch, _ = encode_truncated(engine, tokenizer, listed("texts", texts), bos)
    return head.logits(pooled(engine, batch, [head.layer], head.pooling, tokenizer.bos_id)[0])


def probabilities(logits: np.ndarray, multi_label: bool) -> np.ndarray:
    """Of logits [n, n_labels]: the softmax of each row, or sigmoids if there is one label or they are independent."""
    to_probabilities = sigmoid if multi_label or logits.shape[1] == 1 else softmax
    return np.array([to_probabilities(row) for row in logits.astype(np.float64)]).reshape(logits.shape)
