"""Uses of a language model besides generation: scores, embeddings, labels, zero-shot prompts.

May import: text and what is below it.
Start with `scoring.py`.
"""

from .zero_shot import answer, summarize, translate

__all__ = ["answer", "summarize", "translate"]
