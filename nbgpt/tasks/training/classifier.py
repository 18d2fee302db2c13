"""A trained classifier: labels for texts, and its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path

import numpy as np

from ...engine.engine import Engine
from ...text.prompts import Text
from ...tokenizer import Tokenizer
from ...weights import BaseReference, ClassifierHead, fingerprint, is_head, save_head
from ..classification import head_logits, probabilities
from .evaluation import predicted
from .export import export
from .report import write_report
from .results import Evaluation


@dataclass(frozen=True, repr=False)
class Classifier:
    """A trained head with the model whose hidden states it reads."""

    engine: Engine
    tokenizer: Tokenizer
    bos: bool
    evaluation: Evaluation

    def __repr__(self) -> str:
        return f"Classifier of {len(self.labels)} labels on {self.evaluation.model}"

    @property
    def head(self) -> ClassifierHead:
        """The linear classifier that a file stores."""
        return self.evaluation.head

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, sorted."""
        return self.head.labels

    def predict_proba(self, texts: Sequence[Text]) -> np.ndarray:
        """Probabilities of the labels for each text, float64 [n_texts, n_labels]."""
        return probabilities(
            head_logits(self.engine, self.tokenizer, self.head, texts, self.bos), self.head.multi_label
        )

    def predict(self, texts: Sequence[Text]) -> list[str] | list[list[str]]:
        """The likeliest label of each text; of independent labels, a list of those with more than 1/2."""
        chosen = predicted(self.predict_proba(texts), self.head.multi_label)
        names = [[self.labels[number] for number in np.flatnonzero(row)] for row in chosen]
        return names if self.head.multi_label else [one for [one] in names]

    def save(self, path: str | Path, name: str | None = None) -> Path:
        """Write a file that `nbgpt.load` reads. It names the base model, which has to stay where it is or beside it.

        If the base model was converted from a folder, it is enough that the folder stays: it is converted again.

        Args:
            path: of the file; it must end in .safetensors.
            name: of the classifier; None: that of the file.

        Raises:
            ValueError: the path has another ending, or is that of a file that is no classifier.
            OSError: the file cannot be written.
        """
        path, weights = Path(path), self.engine.weights
        if path.suffix != ".safetensors":
            raise ValueError(f"{path} is the name of the file; it must end in .safetensors")
        if path.exists() and not is_head(path):
            raise ValueError(f"{path} is no classifier, and would be lost: choose another name")
        folder = path.absolute().parent
        place = relpath(weights.path.absolute(), folder)
        source = relpath(weights.source.absolute(), folder) if weights.source else ""
        about = f"classifier of {len(self.labels)} labels, trained on {len(self.evaluation.data.training)} texts"
        base = BaseReference(weights.name, weights.dtype, place, fingerprint(weights), self.bos, about, source)
        save_head(path, self.head, base, name or path.stem)
        return path

    def report(self, path: str | Path) -> None:
        """Write the evaluation as a page: HTML, or Markdown if the path ends in .md. Raises OSError."""
        write_report(self.evaluation, Path(path))

    def export(self, folder: str | Path) -> None:
        """Write a folder for transformers' GPT2ForSequenceClassification: see `export.export`."""
        export(self.engine.weights, self.tokenizer, self.head, self.bos, Path(folder))
