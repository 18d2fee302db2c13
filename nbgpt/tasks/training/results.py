"""What training a classifier gives besides the classifier: everything that was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...weights import ClassifierHead
from .curves import AtLayer, AtSize
from .data import DataSet
from .evaluation import Scores
from .logistic import Fit


@dataclass(frozen=True)
class Evaluation:
    """What was measured in training, all of it on the validation texts unless said."""

    data: DataSet
    head: ClassifierHead
    model: str  # name and dtype of the base model
    n_layer: int  # its layers
    notes: tuple[str, ...]  # what was done to the data, a sentence each
    fit: Fit
    scores: dict[str, Scores]  # by the name of what was measured; this classifier first
    probabilities: np.ndarray  # of the validation texts, float64 [n, n_labels]
    by_layer: list[AtLayer]
    by_examples: list[AtSize]
