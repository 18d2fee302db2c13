"""Readers of other people's checkpoints, without their frameworks.

May import: config, paths, tokenizer.
Start with `base.py`: every reader turns a path into a `Checkpoint`, a config and tensors under the names of OpenAI's
release as Hugging Face spells them (`wte.weight`, `h.0.attn.c_attn.weight` [n_in, n_out], ...), without the
`transformer.` prefix and without stored masks. Nothing is read before a tensor is asked for, and nothing is allocated
before the sizes that a file claims have been checked against its length.
"""

from .base import Checkpoint, FormatError, Tensor
from .dispatch import open_checkpoint
from .vocabulary import NoVocabularyError, Vocabulary, read_vocabulary

__all__ = [
    "Checkpoint",
    "FormatError",
    "NoVocabularyError",
    "Tensor",
    "Vocabulary",
    "open_checkpoint",
    "read_vocabulary",
]
