"""Vocabularies whose JSON is not what readers expect; tests/parity/test_vocabularies.py has those of real models."""

import json

import pytest

from nbgpt.formats.declared import Declared
from nbgpt.formats.tokenizer_kinds import read_json

BPE = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
BYTES = {"type": "ByteLevel", "add_prefix_space": False}


@pytest.mark.parametrize(
    "change",
    [
        {"model": {**BPE, "vocab": [2]}},
        {"model": {**BPE, "vocab": [[]]}},
        {"model": {**BPE, "vocab": [[{}]]}},
        {"model": {**BPE, "merges": [2]}, "pre_tokenizer": BYTES, "decoder": BYTES},
        {"model": {**BPE, "vocab": {"a": "b"}}, "pre_tokenizer": BYTES, "decoder": BYTES},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": 1}},
        {"post_processor": {"type": "TemplateProcessing", "single": [1, 2]}},
        {"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": "a"}, {"Sequence": {}}]}},
    ],
)
def test_values_of_another_type(tmp_path, change):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"added_tokens": [], "model": BPE, **change}))
    with pytest.raises(ValueError, match=r"another type than it must have|tokenizers cannot read it"):
        read_json({"tokenizer": path}, Declared(), 10)
