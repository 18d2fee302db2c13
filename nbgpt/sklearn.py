"""Hidden states as features in a pipeline of scikit-learn: `pip install "nbgpt[train]"`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .model import Model, load
from .tasks.features import checked_layer, checked_pooling, encode_truncated, pooled
from .tasks.scoring import listed
from .weights import Pooling

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise ImportError('nbgpt.sklearn needs the package scikit-learn: pip install "nbgpt[train]"') from None


class TextFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Texts to one vector each: pooled hidden states of a model, which stay as they are.

    A text has the same bits whatever the others. Copies of a transformer share one loaded model, and pickles name it.

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> moods = make_pipeline(TextFeatures(pooling="both"), LogisticRegression(C=0.01))
    >>> _ = moods.fit(["What joy!", "How merry we were!", "She wept.", "All was lost."], [1, 1, 0, 0])
    >>> moods[:-1].transform(["They laughed."]).shape
    (1, 768)
    """

    def __init__(
        self,
        model: str | Path | None = None,
        pooling: Pooling = "both",
        layer: int = -1,
        dtype: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Take what to read.

        Args:
            model: what `nbgpt.load` takes.
            pooling: "last" token's hidden state, "mean" of all tokens', or "both", one after the other.
            layer: as in `Model.hidden_states`: -1 is the last.
            dtype: as for `nbgpt.load`.
            threads: as for `nbgpt.load`.
        """
        self.model = model
        self.pooling = pooling
        self.layer = layer
        self.dtype = dtype
        self.threads = threads

    def fit(self, X: Iterable[str], y: Any = None) -> TextFeatures:  # noqa: N803
        """Load the model. Raises ValueError as `nbgpt.load`, and for parameters that it does not have."""
        _checked(X)
        checked_pooling(self.pooling)
        config = self._loaded().config
        checked_layer(config, self.layer)
        self.n_features_out_ = config.n_embd * (2 if self.pooling == "both" else 1)
        return self

    def transform(self, X: Iterable[str]) -> np.ndarray:  # noqa: N803
        """Features float32 [n_texts, n_features_out_]; of texts that are longer than the context the end is read."""
        check_is_fitted(self, "n_features_out_")
        texts, model = _checked(X), self._loaded()
        layer = checked_layer(model.config, self.layer)
        batch, _ = encode_truncated(model.engine, model.tokenizer, texts, None)
        features: np.ndarray = pooled(model.engine, batch, [layer], self.pooling, model.tokenizer.bos_id)[0]
        return features

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the features: the pooling and a number."""
        check_is_fitted(self, "n_features_out_")
        parts = ("last", "mean") if self.pooling == "both" else (self.pooling,)
        width = self.n_features_out_ // len(parts)
        return np.array([f"{part}{number}" for part in parts for number in range(width)], object)

    def _loaded(self) -> Model:
        return _load(None if self.model is None else str(self.model), self.dtype, self.threads)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        tags.transformer_tags.preserves_dtype = []
        return tags


@lru_cache(maxsize=2)
def _load(model: str | None, dtype: str | None, threads: int | None) -> Model:
    return load(model, dtype, threads)


def _checked(texts: Any) -> list[str]:
    checked = listed("X", texts)
    for number, text in enumerate(checked):
        if not isinstance(text, str):
            raise ValueError(f"X[{number}] is {text!r:.60}; it must be a text")
    return checked
