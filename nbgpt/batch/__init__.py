"""A file of prompts to a file of answers, in shards that a crash leaves whole.

May import: serve, model and what is below them.
Start with `run.py`; `job.py` says what is asked of a row, `table.py` how files are read, `output.py` where answers go.
"""
