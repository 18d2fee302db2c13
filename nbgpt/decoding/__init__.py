"""Decoding strategies that compare whole continuations: beam search, contrastive search.

May import: engine and what is below it.
Start with `beam_search.py`.
"""
