"""Digests that say whether this machine computes the bits that every machine should: `python -m nbgpt verify`.

May import: model and what is below it.
Start with `checks.py`; `expected.json` holds the digests, `texts.py` says what the texts are made with.
"""

from .checks import Check, checks, model_digest
from .digests import VerificationError

__all__ = ["Check", "VerificationError", "checks", "model_digest"]
