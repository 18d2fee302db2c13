"""Text to token ids and back.

May import: paths, validation.
Start with `base.py`: what every vocabulary can do. GPT-2's kind is `byte_bpe.py`, every other one `hugging_face.py`.
"""

from .added import AddedToken
from .base import END_OF_TEXT, Tokenizer
from .byte_bpe import ByteBPE
from .stored import from_bytes
from .stream import StreamDecoder

__all__ = ["END_OF_TEXT", "AddedToken", "ByteBPE", "StreamDecoder", "Tokenizer", "from_bytes"]
