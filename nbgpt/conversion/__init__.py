"""From a name or somebody else's checkpoint to a native file: find, download, convert, calibrate.

May import: engine, weights, formats, tokenizer.
Start with `registry.py`, which says what file a name stands for; `convert.py` writes native files.
"""
