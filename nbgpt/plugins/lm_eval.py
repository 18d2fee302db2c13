"""Plugin for lm-evaluation-harness: `lm_eval --model nbgpt --model_args model=NAME --tasks ...`.

Releases that load plug-ins find it by its entry point; for older ones (0.4.13 is one) importing this module registers
the model, or `python -m nbgpt eval harness` runs the evaluation.
"""

from __future__ import annotations

from typing import Any

from lm_eval.api.registry import register_model

from ..analysis.harness import HarnessModel
from ..model import load


@register_model("nbgpt")
class NbgptLM(HarnessModel):
    """A model that is loaded by the arguments of `nbgpt.load`."""

    def __init__(
        self,
        model: str | None = None,
        dtype: str | None = None,
        threads: int | None = None,
        add_bos_token: bool = False,
        **_: Any,
    ) -> None:
        """The harness also gives batch_size, max_batch_size and device, of which nothing depends here."""
        super().__init__(load(model, dtype, threads), add_bos_token)
