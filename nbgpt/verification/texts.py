"""Seeded texts of the embedded model: together they use every way of choosing an id that needs no extra."""

from __future__ import annotations

from typing import Any

import numpy as np

STORY = "Once upon a time there was a little girl who"
LONG = "The wind was cold, and the old man walked on along the river. " * 70  # longer than the context
_EOS = 50256


def _even_ids_only(ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
    logits[1::2] = -np.inf
    return logits


DEFAULTS: dict[str, Any] = {"prompt": STORY, "seed": 20, "max_tokens": 24}
"""Options of every text that has no others."""
TEXTS: dict[str, dict[str, Any]] = {
    "greedy": {"greedy": True, "logprobs": 3},
    "defaults": {},
    "temperature": {"temperature": 1.5, "top_k": 0, "sample": 3},
    "top_k, top_p": {"temperature": 1.2, "top_k": 100, "top_p": 0.9, "bos": False},
    "min_p": {"temperature": 1.5, "top_k": 0, "min_p": 0.05},
    "typical_p": {"top_k": 0, "typical_p": 0.7},
    "epsilon_cutoff, eta_cutoff": {"top_k": 0, "epsilon_cutoff": 0.002, "eta_cutoff": 0.02, "temperature": 1.3},
    "mirostat": {"mirostat_tau": 4.0, "mirostat_eta": 0.3},
    "repetition_penalty": {"greedy": True, "repetition_penalty": 1.3, "max_tokens": 60},
    "presence_penalty, frequency_penalty": {"greedy": True, "presence_penalty": 1.0, "frequency_penalty": 0.5},
    "no_repeat_ngram_size": {"greedy": True, "no_repeat_ngram_size": 2, "max_tokens": 60},
    "dry": {
        "greedy": True,
        "dry_multiplier": 2.0,
        "dry_base": 2.0,
        "dry_allowed_length": 1,
        "dry_sequence_breakers": [","],
        "max_tokens": 60,
    },
    "logit_bias, bad_words": {"logit_bias": {257: 3.0, 11: -2.0}, "bad_words": ["the", [373, 257]]},
    "stop, min_tokens": {"stop": [",", 290], "min_tokens": 12, "max_tokens": 80},
    "ignore_eos": {"logit_bias": {_EOS: 8.0}, "ignore_eos": True},
    "prefix, echo": {"prefix": " lived in the", "echo": True},
    "logits_processors": {"logits_processors": [_even_ids_only]},
    "truncate_left": {"prompt": LONG, "overflow": "truncate_left", "max_tokens": 60},
    "keep_first": {"prompt": LONG, "overflow": "keep_first", "max_tokens": 60},
    "prompt_lookup": {"prompt": LONG[:200], "prompt_lookup": True, "temperature": 0.5},
    "samples": {"prompt": [STORY, "The"], "n": 3, "batch_size": 4, "temperature": 1.1},
}
"""Options of `Model.generate` by the name of the text."""
