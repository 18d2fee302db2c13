"""Seeds that are other people's checkpoints: whole ones, of the smallest model that there is."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from formats.test_gguf import BLOCK
from formats.test_tensorflow import block_of, entry_of, table_of, varint

from nbgpt.config import GPT2Config
from nbgpt.formats.names import expected_shapes, is_conv1d
from nbgpt.formats.tensorflow import _variable

CONFIG = GPT2Config(n_layer=1, n_head=1, n_embd=2, n_ctx=4, n_vocab=7)
Q8_0 = gguf.GGMLQuantizationType.Q8_0


def nanogpt() -> Iterator[tuple[str, bytes]]:
    """A file, and what is pickled in one, with and without biases: all tensors share a storage of 64 numbers."""
    storage = torch.zeros(64)
    for name, prefix, has_biases in [("biases", "transformer.", True), ("none", "_orig_mod.transformer.", False)]:
        model = {}
        for key, shape in expected_shapes(CONFIG):
            if has_biases or not key.endswith("bias"):
                stored = shape[::-1] if is_conv1d(key) and len(shape) == 2 else shape
                model[prefix + key] = torch.as_strided(storage, stored, (stored[-1], 1)[-len(stored) :])
        sizes = {"n_layer": 1, "n_head": 1, "n_embd": 2, "block_size": 4, "vocab_size": 7}
        saved = {"model": model, "model_args": {**sizes, "bias": has_biases, "dropout": 0.0}, "iter_num": 3}
        file = io.BytesIO()
        torch.save(saved, file)
        if has_biases:
            yield "ckpt.pt", file.getvalue()
        with zipfile.ZipFile(file) as archive:
            yield f"{name}.pkl", next(archive.read(one) for one in archive.namelist() if one.endswith("data.pkl"))


def llm_c() -> Iterator[tuple[str, bytes]]:
    """In float32 and in bfloat16, with rows that stand for no token."""
    for version, item_size in [(3, 4), (5, 2)]:
        n_padded, c = 8, CONFIG
        header = np.zeros(256, "<i4")
        header[:8] = 20240326, version, c.n_ctx, c.n_vocab, c.n_layer, c.n_head, c.n_embd, n_padded
        n_numbers = c.n_parameters + (n_padded - c.n_vocab) * c.n_embd
        yield f"version {version}", header.tobytes() + bytes(item_size * n_numbers)


def gguf_files() -> Iterator[tuple[str, bytes]]:
    """Each with another kind of vocabulary, and one whose matrices are quantized."""
    pieces = ["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "b", "ab", "▁ab", "c d"]
    types, scores = [2, 3, 3, 6, 1, 1, 1, 1, 1, 4], [-float(i) for i in range(10)]
    plain = [chr(n) for n in range(256) if chr(n).isprintable() and n != 32]
    singles = plain + [chr(256 + n) for n in range(256 - len(plain))]  # GPT-2's letters for the 256 bytes

    def unigram(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("t5")
        writer.add_remove_extra_whitespaces(True)
        writer.add_token_list(pieces)
        writer.add_token_scores(scores)
        writer.add_token_types(types)

    def llama(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_add_bos_token(True)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_token_list(pieces)
        writer.add_token_scores(scores)
        writer.add_token_types(types)

    def bytes_of_gpt2(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list([*singles, "ab", "<end>"])
        writer.add_token_types([1] * 257 + [3])
        writer.add_token_merges(["a b"])
        writer.add_eos_token_id(257)

    def nothing(writer: gguf.GGUFWriter) -> None:
        writer.add_name("no vocabulary")

    for name, n_vocab, n_embd, add in [
        ("unigram", 10, 2, unigram),
        ("llama", 10, 2, llama),
        ("gpt2", 258, 1, bytes_of_gpt2),
        ("q8_0", 10, 32, nothing),
    ]:
        yield name, _gguf(GPT2Config(1, 1, n_embd, 2, n_vocab, n_inner=n_embd), add)


def _gguf(config: GPT2Config, add_vocabulary: Callable[[gguf.GGUFWriter], None]) -> bytes:
    path = Path(tempfile.mkdtemp()) / "a.gguf"
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_context_length(config.n_ctx)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_inner)
    writer.add_layer_norm_eps(1e-5)
    add_vocabulary(writer)
    names = {f"h.0.{ours}": f"blk.0.{theirs}" for ours, theirs in BLOCK.items()}
    names |= {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
    for key, shape in expected_shapes(config):
        stem, _, kind = key.rpartition(".")
        values = np.zeros(shape[::-1] if is_conv1d(key) and len(shape) == 2 else shape, np.float32)
        if len(shape) == 2 and shape[-1] % 32 == 0 and key != "wpe.weight":
            writer.add_tensor(f"{names[stem]}.{kind}", gguf.quantize(values, Q8_0), raw_dtype=Q8_0)
        else:
            writer.add_tensor(f"{names[stem]}.{kind}", values.astype(np.float16) if stem == "wpe" else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def tensorflow() -> Iterator[tuple[str, bytes]]:
    """Indices: in one block, in two, and compressed."""
    entries: dict[bytes, bytes] = {b"": b"\x08\x01", b"global_step": entry_of((), bytes(4), dtype=3)}
    for key, shape in expected_shapes(CONFIG):
        variable, stored = _variable(key, shape)
        entries[variable.encode()] = entry_of(stored, bytes(4 * int(np.prod(stored))))
    pairs: list[Any] = sorted(entries.items())
    block = block_of(pairs)
    yield "one block", table_of([block])
    yield "two blocks", table_of([block_of(pairs[:5]), block_of(pairs[5:])])
    yield "compressed", table_of([_snappy(block)], b"\1")


def _snappy(data: bytes) -> bytes:
    """Raw Snappy: what has stood there lately is copied, in each of the ways that there are."""
    packed, literal, at = varint(len(data)), b"", 0
    while at < len(data):
        n = next((n for n in (11, 6, 4) if data.rfind(data[at : at + n], 0, at) >= 0 and at + n <= len(data)), 0)
        if n == 0 and len(literal) < 60:
            literal, at = literal + data[at : at + 1], at + 1
            continue
        packed += bytes([len(literal) - 1 << 2]) + literal if literal else b""
        literal = b""
        if n:
            back = at - data.rfind(data[at : at + n], 0, at)
            if n == 11 and back < 2048:  # one byte of offset, and three bits
                packed += bytes([back >> 8 << 5 | n - 4 << 2 | 1, back & 255])
            elif n == 6:
                packed += bytes([n - 1 << 2 | 2]) + back.to_bytes(2, "little")
            else:
                packed += bytes([n - 1 << 2 | 3]) + back.to_bytes(4, "little")
            at += n
    return packed + (bytes([len(literal) - 1 << 2]) + literal if literal else b"")


CHECKPOINTS = {"nanogpt": nanogpt, "llm_c": llm_c, "gguf": gguf_files, "tensorflow": tensorflow}
