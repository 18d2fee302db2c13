"""Lossless compression: an entropy coder that knows the model's next-token probabilities.

May import: engine, formats, text, tokenizer.
Start with `codec.py`; docs/compression.md explains the method and the file.
"""

from .codec import compress, decompress

__all__ = ["compress", "decompress"]
