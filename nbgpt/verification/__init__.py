"""Digests that say whether this machine computes the bits that every machine should: `python -m nbgpt verify`.

May import: model and what is below it.
Start with `machine.py`; `expected.json` holds the digests, `texts.py` says what the texts are made with.
"""

from .digests import VerificationError
from .machine import Check, checks, model_digest

__all__ = ["Check", "VerificationError", "checks", "model_digest"]
