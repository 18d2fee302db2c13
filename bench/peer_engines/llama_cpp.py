"""llama.cpp, by its C interface, as llama-bench and llama-batched-bench drive it.

Flash attention is on: measured, that is faster in every test, by 5 to 25 % (F32 at batch 8: nearly three times). A
float32 cache is slower than its default of float16.
"""

import ctypes
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import numpy as np

from . import engine

logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
STORED = {"F32": llama_cpp.LLAMA_FTYPE_ALL_F32, "F16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16}
QUANTIZED = {
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
}
TOP = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
FLASH_ATTENTION = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
BLOCK = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def convert(source: Path, dtype: str, target: Path) -> None:
    """A GGUF file; the quantized ones are made from float32 by llama.cpp itself, with its own mix of types."""
    if dtype in STORED:
        _write_gguf(source, dtype, target)
        return
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        whole = Path(folder) / "F32.gguf"
        _write_gguf(source, "F32", whole)
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = QUANTIZED[dtype]
        if llama_cpp.llama_model_quantize(str(whole).encode(), str(target).encode(), ctypes.byref(options)):
            raise RuntimeError(f"llama.cpp could not quantize {source} to {dtype}")


def _write_gguf(source: Path, dtype: str, target: Path) -> None:
    """In the layout of llama.cpp's own converter: Conv1D matrices transposed, vectors and positions in float32."""
    import gguf

    config = json.loads((source / "config.json").read_text())
    writer = gguf.GGUFWriter(target, "gpt2")
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(STORED[dtype])
    _add_vocabulary(writer, source, config["eos_token_id"])
    matrix_type = np.float16 if dtype == "F16" else np.float32
    for name, values in _tensors(source):
        is_matrix = values.ndim == 2 and not name.startswith("position_embd")
        writer.add_tensor(name, values.astype(matrix_type) if is_matrix else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: object, source: Path, end_of_text: int) -> None:
    import gguf

    vocabulary = json.loads((source / "vocab.json").read_text())
    merges = (source / "merges.txt").read_text().splitlines()[1:]
    types = [gguf.TokenType.NORMAL] * len(vocabulary)
    types[end_of_text] = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(end_of_text)
    writer.add_eos_token_id(end_of_text)


def _tensors(source: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors under llama.cpp's names and in its layout."""
    from safetensors import safe_open

    with safe_open(source / "model.safetensors", "np") as file:
        for key in file.keys():  # noqa: SIM118 (it is not a dict)
            stem, _, kind = key.removeprefix("transformer.").rpartition(".")
            values = file.get_tensor(key).astype(np.float32)
            if stem in TOP:
                yield f"{TOP[stem]}.{kind}", values
                continue
            _, layer, part = stem.split(".", 2)
            if part in BLOCK:  # the stored causal mask is none
                is_conv1d = values.ndim == 2
                yield f"blk.{layer}.{BLOCK[part]}.{kind}", np.ascontiguousarray(values.T) if is_conv1d else values


class Engine(engine.Engine):
    def __init__(self, path: Path, dtype: str, threads: int, *, is_plain: bool = False) -> None:
        options = llama_cpp.llama_model_default_params()
        if is_plain:
            options.use_extra_bufts = False  # neither repacked matrices nor those in AMX's layout
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        if not self.model:
            raise RuntimeError(f"llama.cpp could not load {path}")
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.contexts = {
            1: self._new_context(engine.PROMPT, 1, threads),
            engine.BATCH: self._new_context(engine.BATCH * engine.STEPS, engine.BATCH, threads),
        }
        self.batch = llama_cpp.llama_batch_init(engine.BATCH, 0, 1)
        self.settings = (
            "built for this CPU, flash attention, float16 KV cache; its defaults: OpenMP, mapped file, llamafile"
            + ("" if is_plain else ", repacked matrices")
            + "; logits of the last position"
        )

    def _new_context(self, n_ctx: int, n_sequences: int, threads: int) -> object:
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_seq_max = n_ctx, n_sequences
        options.n_threads = options.n_threads_batch = threads
        options.flash_attn_type = FLASH_ATTENTION
        return llama_cpp.llama_init_from_model(self.model, options)

    def clear(self, batch: int) -> None:
        self.context = self.contexts[batch]
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)

    def prompt(self, ids: list[int]) -> np.ndarray:
        tokens = (ctypes.c_int32 * len(ids))(*ids)  # a batch only points to them
        self._decode(llama_cpp.llama_batch_get_one(tokens, len(ids)))
        return self._logits(1)[0]

    def generate(self, ids: list[list[int]]) -> np.ndarray:
        self.batch.n_tokens = len(ids)
        for position, step in enumerate(zip(*ids, strict=True)):
            for i, token in enumerate(step):
                self.batch.token[i], self.batch.pos[i] = token, position
                self.batch.n_seq_id[i], self.batch.seq_id[i][0], self.batch.logits[i] = 1, i, 1
            self._decode(self.batch)
        return self._logits(len(ids))

    def _decode(self, batch: llama_cpp.llama_batch) -> None:
        if llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        llama_cpp.llama_synchronize(self.context)

    def _logits(self, n: int) -> np.ndarray:
        """Of the n positions that wanted them in the last batch."""
        pointer = llama_cpp.llama_get_logits(self.context)
        return np.ctypeslib.as_array(pointer, (n, self.n_vocab))
