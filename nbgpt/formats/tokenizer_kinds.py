"""Readers for each kind of vocabulary: a file beside the weights -> a tokenizer.

Byte-level BPE with GPT-2's pre-tokenization runs on tiktoken, whichever file it is in. Every other kind runs on Hugging
Face's `tokenizers`, as a tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..paths import named
from ..strict_json import LARGE_BYTES, read_object
from ..tokenizer import AddedToken, Tokenizer
from ..tokenizer.byte_bpe import ByteBPE
from ..tokenizer.hugging_face import JsonTokenizer
from ..tokenizer.merges import as_pairs, read_merges, read_vocabulary
from . import sentencepiece
from .base import CONVERT_ORIGINAL, FormatError
from .declared import Declared
from .sentencepiece import CONTROL, UNKNOWN, UNUSED, USER_DEFINED, Piece, Pieces

Files = Mapping[str, Path]
Spec = dict[str, Any]
PARTNER = {"vocab": "merges"}
"""Kinds of two files."""
_GGUF_PATTERNS = (None, "default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe")  # cut text as GPT-2 does


@contextmanager
def _refusing_other_types() -> Iterator[None]:
    """Raise ValueError for a value of another type than it must have: JSON and GGUF may have any in its place."""
    try:
        yield
    except (TypeError, AttributeError, LookupError) as error:
        raise ValueError(
            f"a value is missing or has another type than it must have ({type(error).__name__}: {error!s:.80})"
        ) from error


@_refusing_other_types()
def read_json(files: Files, declared: Declared, n_vocab: int) -> Tokenizer:
    """tokenizer.json."""
    return _from_spec(read_object(files["tokenizer"], LARGE_BYTES), declared, n_vocab)


def read_vocab_and_merges(files: Files, declared: Declared, n_vocab: int) -> Tokenizer:
    """vocab.json and merges.txt."""
    if "merges" not in files:
        raise ValueError(
            "merges.txt (OpenAI's vocab.bpe) is missing, and there is no tokenizer.json; fetch the whole folder"
        )
    vocabulary = read_vocabulary(files["vocab"])
    try:
        pairs = read_merges(_read_small(files["merges"]))
    except ValueError as error:
        raise FormatError(f"{files['merges']}: {error}") from None
    prefix_space = declared.fields.get("add_prefix_space") is True
    return _byte_level(vocabulary, pairs, declared, n_vocab, prefix_space)


def read_wordpiece(files: Files, declared: Declared, n_vocab: int) -> Tokenizer:
    """vocab.txt of a BertTokenizer."""
    lines = _read_small(files["wordpiece"]).decode("utf-8-sig").splitlines()
    vocabulary = {line.rstrip(): i for i, line in enumerate(lines) if line.rstrip()}
    for role, usual in {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}.items():
        name = declared.roles.setdefault(f"{role}_token", usual)
        declared.special |= {name} & vocabulary.keys()
    unknown = declared.roles["unk_token"]
    if unknown not in vocabulary:
        raise ValueError(f"{unknown!r:.60} is not in it; is this the vocabulary of a BertTokenizer?")
    fields = declared.fields
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": fields.get("tokenize_chinese_chars") is not False,
        "strip_accents": fields.get("strip_accents"),
        "lowercase": fields.get("do_lower_case") is not False,
    }
    model = {
        "type": "WordPiece",
        "unk_token": unknown,
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": vocabulary,
    }
    spec = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": model,
    }
    return _from_spec(spec, declared, n_vocab)


def read_sentencepiece(files: Files, declared: Declared, n_vocab: int) -> Tokenizer:
    """spiece.model."""
    pieces, roles = sentencepiece.parse(_read_small(files["sentencepiece"]))
    for role, name in roles.items():
        declared.roles.setdefault(role, name)
    return _from_spec(pieces.spec(), declared, n_vocab)


@_refusing_other_types()
def read_gguf(files: Files, declared: Declared, n_vocab: int) -> Tokenizer | None:
    """The token list of a GGUF file; None if it has none."""
    from .gguf import read_tokenizer_metadata

    metadata = read_tokenizer_metadata(files["gguf"])
    kind, names = metadata.get("model"), metadata.get("tokens")
    if kind is None or not isinstance(names, list):
        return None
    types = metadata.get("token_type") or [sentencepiece.NORMAL] * len(names)
    scores = metadata.get("scores") or [0.0] * len(names)
    if not len(names) == len(types) == len(scores):
        raise ValueError(f"{len(names)} tokens, {len(types)} types and {len(scores)} scores; fetch it again")
    declared.ends = {name: metadata.get(name) for name in ("bos_token_id", "eos_token_id")}
    declared.adds_bos = metadata.get("add_bos_token") is True
    pieces = [
        Piece(str(name), score, UNUSED if name == f"[PAD{i}]" else type_)  # as llama.cpp's converter names padding
        for i, (name, score, type_) in enumerate(zip(names, scores, types, strict=True))
    ]
    if kind == "gpt2":
        return _gguf_bytes(pieces, metadata, declared, n_vocab)
    if kind not in ("llama", "t5"):
        raise ValueError(f"its vocabulary is of the kind {kind!r:.40}; {CONVERT_ORIGINAL}")
    return _from_spec(_gguf_pieces(pieces, metadata, kind == "t5").spec(), declared, n_vocab)


READERS: dict[str, Callable[[Files, Declared, int], Tokenizer | None]] = {
    "tokenizer": read_json,
    "vocab": read_vocab_and_merges,
    "wordpiece": read_wordpiece,
    "sentencepiece": read_sentencepiece,
    "gguf": read_gguf,
}
"""Raise ValueError, ImportError, or FormatError that names the file."""


def _gguf_bytes(pieces: Sequence[Piece], metadata: Spec, declared: Declared, n_vocab: int) -> Tokenizer:
    """Byte-level BPE in a GGUF file."""
    if metadata.get("pre") not in _GGUF_PATTERNS:
        cut = metadata["pre"]
        raise ValueError(f"text is cut as {cut!r:.40} does, not as GPT-2; {CONVERT_ORIGINAL}")
    for i, piece in enumerate(pieces):
        if piece.type in (UNKNOWN, CONTROL, USER_DEFINED):
            declared.added.setdefault(piece.text, {"id": i, "special": piece.type != USER_DEFINED})
    vocabulary = {piece.text: i for i, piece in enumerate(pieces) if piece.type != UNUSED}
    prefix_space = metadata.get("add_space_prefix") is True
    unknown = next((piece.text for i, piece in enumerate(pieces) if i == metadata.get("unknown_token_id")), None)
    pairs = as_pairs(metadata.get("merges") or ())
    return _byte_level(vocabulary, pairs, declared, n_vocab, prefix_space, unknown)


def _gguf_pieces(pieces: Sequence[Piece], metadata: Spec, is_unigram: bool) -> Pieces:
    return Pieces(
        pieces,
        is_unigram,
        bytes(metadata.get("precompiled_charsmap") or ()),
        adds_prefix_space=metadata.get("add_space_prefix") is not False,
        removes_extra_spaces=is_unigram and metadata.get("remove_extra_whitespaces") is not False,
    )


def _from_spec(spec: Spec, declared: Declared, n_vocab: int) -> Tokenizer:
    """Any tokenizer.json."""
    model = spec.get("model")
    if not isinstance(model, dict):
        raise ValueError("no model in it; is this the tokenizer.json of a GPT-2?")
    added = spec.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(_field(one, "content"), str) for one in added):
        raise ValueError(f"added_tokens are {added!r:.80}; they must be objects with the token's content")
    for one in added:
        declared.added.setdefault(one["content"], one)
    declared.adds_bos |= _begins_with_a_token(spec, declared)
    before = _only(spec.get("pre_tokenizer"), "pretokenizers")
    if _is_byte_level(spec, model) and before.get("type") == "ByteLevel" and before.get("use_regex") is not False:
        prefix_space = before.get("add_prefix_space") is True
        try:
            return ByteBPE.from_spellings(
                model["vocab"], as_pairs(model["merges"]), declared.tokens(model["vocab"], n_vocab), prefix_space
            )
        except ValueError:
            pass  # byte-level BPE that ranks alone do not describe
    return _through_tokenizers(spec, declared, n_vocab)


def _byte_level(
    vocabulary: dict[str, int],
    pairs: list[tuple[str, str]],
    declared: Declared,
    n_vocab: int,
    prefix_space: bool,
    unknown: str | None = None,
) -> Tokenizer:
    """A vocabulary in GPT-2's two files, as transformers' GPT2Tokenizer makes it a tokenizer.json.

    unknown: what stands for a byte that has no token, in place of nothing.
    """
    model = {"type": "BPE", "unk_token": unknown, "vocab": vocabulary, "merges": pairs}
    before = {"type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": True, "use_regex": True}
    spec = {"version": "1.0", "added_tokens": [], "pre_tokenizer": before, "decoder": before}
    return _from_spec({**spec, "normalizer": None, "model": model}, declared, n_vocab)


def _is_byte_level(spec: Spec, model: Spec) -> bool:
    """True if this is byte-level BPE of the unchanged text."""
    marks = ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    return (
        model.get("type", "BPE") == "BPE"
        and isinstance(model.get("vocab"), dict)
        and isinstance(model.get("merges"), list)
        and not any(model.get(mark) for mark in marks)
        and not spec.get("normalizer")
        and _only(spec.get("decoder"), "decoders").get("type") == "ByteLevel"
    )


def _only(part: Any, parts: str) -> Spec:
    """A step of the pipeline, also if it is the only one of a sequence."""
    if isinstance(part, dict) and part.get("type") == "Sequence" and len(part.get(parts) or ()) == 1:
        part = part[parts][0]
    return part if isinstance(part, dict) else {}


def _field(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, dict) else None


def _begins_with_a_token(spec: Spec, declared: Declared) -> bool:
    """True if the template puts a token before each text and none after it; that token becomes bos_token."""
    template = _only(spec.get("post_processor"), "processors")
    parts = template.get("single") if template.get("type") == "TemplateProcessing" else None
    if not isinstance(parts, list) or len(parts) != 2 or "SpecialToken" not in parts[0] or "Sequence" not in parts[1]:
        return False
    declared.roles.setdefault("bos_token", str(parts[0]["SpecialToken"].get("id")))
    return True


def _through_tokenizers(spec: Spec, declared: Declared, n_vocab: int) -> Tokenizer:
    model = spec["model"]
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, list):  # Unigram's: pairs of name and score by id
        vocabulary = {pair[0]: i for i, pair in enumerate(vocabulary)}
    if not isinstance(vocabulary, dict):
        raise ValueError("no vocabulary in its model; is this the tokenizer.json of a GPT-2?")
    normalized = {one["content"]: one.get("normalized") for one in declared.added.values() if "content" in one}
    added = [_as_json(token, normalized.get(token.content)) for token in declared.tokens(vocabulary, n_vocab)]
    tokenizer = JsonTokenizer.from_spec({**spec, "added_tokens": added})
    for token in added:
        if tokenizer.id_of(token["content"]) != token["id"]:
            raise ValueError(
                f"added token {token['content']!r:.60} has the id {token['id']}, after ids without a token"
            )
    return tokenizer


def _as_json(token: AddedToken, normalized: Any) -> Spec:
    return {**asdict(token), "normalized": not token.special if normalized is None else bool(normalized)}


def _read_small(path: Path) -> bytes:
    if (size := path.stat().st_size) > LARGE_BYTES:
        raise ValueError(f"{size} bytes are too many for a vocabulary; nbgpt reads up to {LARGE_BYTES}")
    with named(path):
        return path.read_bytes()
