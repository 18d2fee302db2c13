"""Ways of choosing whole continuations: beam search, contrastive search.

May import: engine, sampling, validation.
Start with `beam_search.py`.
"""
