"""From a model's name or somebody else's checkpoint to a native file: find, download, convert, calibrate.

May import: decoding, engine and what is below them.
Start with `registry.py`, which says what file a name stands for; `convert.py` writes native files.
"""
