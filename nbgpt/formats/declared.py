"""Declarations in the small files beside a vocabulary: added tokens, roles of special tokens, the tokenizer's class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..strict_json import LARGE_BYTES, SMALL_BYTES, read_object
from ..tokenizer import AddedToken, Tokenizer
from .base import FormatError

_FLAGS = ("special", "lstrip", "rstrip", "single_word")


@dataclass
class Declared:
    """Declarations; the reader of a vocabulary adds those of the vocabulary itself."""

    fields: dict[str, Any] = field(default_factory=dict)  # of tokenizer_config.json
    tokenizer_class: Any = None
    added: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> its id and its flags
    roles: dict[str, str] = field(default_factory=dict)  # "eos_token" and the like -> name
    special: set[str] = field(default_factory=set)  # names of special tokens
    ends: dict[str, Any] = field(default_factory=dict)  # "eos_token_id" and the like, as config.json has them
    adds_bos: bool = False

    def tokens(self, vocabulary: Mapping[str, int], n_vocab: int) -> list[AddedToken]:
        """The added tokens of a vocabulary, each that the model has a row for, by their ids.

        Special tokens that stand in the vocabulary itself are among them.
        """
        fields = {name: {"id": vocabulary[name]} for name in self.special if name in vocabulary} | self.added
        found = {}
        for name, one in fields.items():
            i = vocabulary.get(name, one.get("id"))
            if type(i) is not int or i < 0:
                raise FormatError(f"added token {name!r:.60} has the id {i!r:.40}; it must be a whole number from 0 on")
            if i < n_vocab and name:
                flags = {flag: bool(one.get(flag)) for flag in _FLAGS}
                found[i] = AddedToken(i, name, **{**flags, "special": flags["special"] or name in self.special})
        return [found[i] for i in sorted(found)]

    def ids_of(self, role: str, tokenizer: Tokenizer) -> list[int]:
        """The id of a role's token, if the vocabulary has it."""
        name = self.roles.get(role, "").encode(errors="replace")
        ids = [token.id for token in tokenizer.added if token.content.encode(errors="replace") == name]
        return ids if name else []


def read_declared(files: Mapping[str, Path]) -> Declared:
    """From added_tokens.json, special_tokens_map.json, tokenizer_config.json, config.json. Raises FormatError."""
    config, tokens_map, added, model = (
        read_object(files[kind], LARGE_BYTES if kind == "tokenizer_config" else SMALL_BYTES) if kind in files else {}
        for kind in ("tokenizer_config", "special", "added", "config")
    )
    named = config.get("tokenizer_class")
    declared = Declared(config, named if model.get("tokenizer_class") is None else model["tokenizer_class"])
    declared.adds_bos = config.get("add_bos_token") is True
    for source in (config, tokens_map):
        for role, name in _names(source):
            declared.special.add(name)
            declared.roles.setdefault(role, name)
    decoder = config.get("added_tokens_decoder")
    for i, fields in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(fields, dict) and isinstance(fields.get("content"), str) and i.isdecimal() and i.isascii():
            declared.added[fields["content"]] = {**fields, "id": int(i[:20])}
    for name, i in added.items():
        declared.added.setdefault(name, {"id": i})
    return declared


def _names(source: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(role, name) of each special token that a file names, as text or as an object with its flags."""
    for role, value in source.items():
        if role.endswith("_token"):
            values = [value]
        elif role in ("additional_special_tokens", "extra_special_tokens"):
            values = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        else:
            continue
        for one in values:
            name = one.get("content") if isinstance(one, dict) else one
            if isinstance(name, str) and name:
                yield role, name
