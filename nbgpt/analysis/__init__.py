"""Looking at a model and measuring it: traces, the explain page, perplexity and other measures, benchmarks of speed.

May import: tasks and what is below it.
Start with `trace.py`.
"""
