"""Declarations beside a vocabulary."""

import json

from nbgpt.formats.declared import read_declared


def test_fifty_thousand_added_tokens(tmp_path):
    """With their flags they take more than the small files beside weights may have."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": False}
    tokens = {str(i): {"content": f"<token {i}>", **flags} for i in range(50_000)}
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"added_tokens_decoder": tokens}, indent=2))
    assert path.stat().st_size > 8 << 20
    declared = read_declared({"tokenizer_config": path})
    assert len(declared.tokens({}, 50_000)) == 50_000
