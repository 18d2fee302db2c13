"""Looking at a model and measuring it: traces, the explain page, perplexity, benchmarks.

May import: tasks, text, engine, weights.
Start with `trace.py`.
"""
