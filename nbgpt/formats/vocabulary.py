"""Finds the vocabulary of a checkpoint, and the ids that begin and end its texts, in the files beside the weights.

The rules are those of transformers' `AutoTokenizer`: a tokenizer.json counts before the files that it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import GPT2Config
from ..strict_json import CONFIG_BYTES, read_object
from ..tokenizer import ByteBPE, Tokenizer
from .base import CONVERT_ORIGINAL, Checkpoint, FormatError
from .declared import Declared, read_declared

_FILES = {  # what is read, in the order of preference -> names that it has in folders
    "tokenizer": ("tokenizer.json",),
    "vocab": ("vocab.json", "encoder.json"),
    "merges": ("merges.txt", "vocab.bpe"),
    "wordpiece": ("vocab.txt",),
    "sentencepiece": ("spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.model"),
    "added": ("added_tokens.json",),
    "special": ("special_tokens_map.json",),
    "tokenizer_config": ("tokenizer_config.json",),
    "generation_config": ("generation_config.json",),
    "config": ("config.json",),
}
GPT2S = "GPT-2's own, as there is none beside the weights"
"""The origin of a vocabulary that is taken for granted."""
_GPT2_CLASSES = (None, "GPT2Tokenizer", "GPT2TokenizerFast")
_N_GPT2 = 50257
_N_PADDED = 50432  # to a multiple of 256: what trainers pad it to at most
_NO_DEFAULTS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version")
_PUT_IT = "put its tokenizer.json beside them, which AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER) writes"


class NoVocabularyError(FormatError):
    """The checkpoint has no vocabulary, and its embedding does not have the size of GPT-2's own."""


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary, the ids that begin and end texts, and other defaults from the files."""

    tokenizer: Tokenizer
    origin: str  # where it was found
    adds_bos: bool = False  # texts begin with the tokenizer's bos_id
    defaults: dict[str, Any] = field(default_factory=dict)  # other values of generation_config.json, not applied


def text_files(folder: Path) -> dict[str, Path]:
    """The files of a folder, as transformers and OpenAI name them, that say something about vocabulary and ends."""
    found = {}
    for kind, names in _FILES.items():
        if path := next((folder / name for name in names if (folder / name).is_file()), None):
            found[kind] = path
    return found


def read_vocabulary(checkpoint: Checkpoint) -> Vocabulary:
    """The vocabulary of a checkpoint.

    Raises NoVocabularyError if there is none, FormatError if it is broken or has more tokens than the model, and
    ImportError for one that needs the package `tokenizers`.
    """
    files, config = checkpoint.tokenizer_files, checkpoint.config
    declared = read_declared(files)
    if found := _own(files, declared, config.n_vocab):
        tokenizer, origin = found
    else:
        tokenizer, origin = _gpt2s(checkpoint, declared), GPT2S
    if tokenizer.n_vocab > config.n_vocab:
        raise FormatError(
            f"{origin}: {tokenizer.n_vocab} tokens, and the model's embedding has {config.n_vocab} rows; "
            "do the two belong together?"
        )
    generation = read_object(files["generation_config"]) if "generation_config" in files else {}
    settings = [generation, read_object(files["config"], CONFIG_BYTES) if "config" in files else {}, declared.ends]
    _set_ends(tokenizer, settings, declared)
    defaults = {
        name: value for name, value in generation.items() if name not in _NO_DEFAULTS and not name.startswith("_")
    }
    return Vocabulary(tokenizer, origin, declared.adds_bos and tokenizer.bos_id is not None, defaults)


def _own(files: Mapping[str, Path], declared: Declared, n_vocab: int) -> tuple[Tokenizer, str] | None:
    """The vocabulary that lies with the weights, and where, or None. Raises FormatError, ImportError."""
    from . import tokenizer_kinds as kinds

    kind = next((kind for kind in (*_FILES, "gguf") if kind in files and kind in kinds.READERS), None)
    if kind is None:
        return None
    try:
        found = kinds.READERS[kind](files, declared, n_vocab)
    except (ValueError, ImportError) as error:
        has_place = str(error).startswith(str(files[kind].parent))
        message = str(error) if has_place else f"{files[kind]}: {error}"
        raise (ImportError if isinstance(error, ImportError) else FormatError)(message) from None
    names = [files[name].name for name in (kind, "merges") if name in files and name in (kind, kinds.PARTNER.get(kind))]
    return None if found is None else (found, f"of {' and '.join(names)}")


def _gpt2s(checkpoint: Checkpoint, declared: Declared) -> Tokenizer:
    """GPT-2's own vocabulary, for a model that can only have this one. Raises NoVocabularyError for others."""
    n_vocab = checkpoint.config.n_vocab
    where = checkpoint.files[0].parent if checkpoint.files else "the checkpoint"
    reason = ""
    if declared.tokenizer_class not in _GPT2_CLASSES:
        reason = f"config.json names {declared.tokenizer_class!r:.60}"
    elif not is_gpt2s_size(checkpoint.config):
        reason = f"an embedding of {n_vocab} rows is not GPT-2's (50257)"
    if reason:
        cure = CONVERT_ORIGINAL if "gguf" in checkpoint.tokenizer_files else _PUT_IT
        raise NoVocabularyError(f"{where}: no vocabulary beside the weights, and {reason}; {cure}")
    return ByteBPE.shipped()


def is_gpt2s_size(config: GPT2Config) -> bool:
    """True if the embedding has GPT-2's 50257 rows, or these and padding."""
    return config.n_vocab == _N_GPT2 or (_N_GPT2 < config.n_vocab <= _N_PADDED and config.n_vocab % 8 == 0)


def _set_ends(tokenizer: Tokenizer, settings: list[dict[str, Any]], declared: Declared) -> None:
    """Set the ids that begin and end texts: from the first config that has any, else from the tokens' roles.

    An id that the vocabulary does not have says nothing: transformers writes GPT-2's 50256 into any config.json.
    """
    eos_ids = _ids(tokenizer, settings, "eos_token_id") or declared.ids_of("eos_token", tokenizer)
    eos_ids = eos_ids or [i for i in (tokenizer.eos_id,) if i is not None]
    bos_ids = _ids(tokenizer, settings, "bos_token_id") or declared.ids_of("bos_token", tokenizer) or eos_ids
    tokenizer.set_ends(bos_ids[0] if bos_ids else None, eos_ids)


def _ids(tokenizer: Tokenizer, settings: list[dict[str, Any]], name: str) -> list[int]:
    for fields in settings:
        value = fields.get(name)
        ids = [i for i in (value if isinstance(value, list) else [value]) if type(i) is int and i in tokenizer]
        if ids:
            return list(dict.fromkeys(ids))
    return []
