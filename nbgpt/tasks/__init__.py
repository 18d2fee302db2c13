"""Uses of a language model besides generation: scores, embeddings, labels, zero-shot prompts.

May import: engine, weights, tokenizer, operations and what is below them.
Start with `scoring.py`.
"""

from .zero_shot import answer, summarize, translate

__all__ = ["answer", "summarize", "translate"]
