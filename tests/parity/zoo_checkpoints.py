"""Makers of one tiny GPT-2 in every kind of checkpoint, each by its own writer where that can be installed."""

import copy
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from formats.test_gguf import Type
from formats.test_gguf import write as write_gguf
from formats.test_llm_c import MODULES
from formats.test_tensorflow import INDEX, SHARD, block_of, entry_of, openai_name, table_of
from test_transformers import logits_of, peer_of, torch, transformers

SIZES = {"n_layer": 2, "n_head": 4, "n_embd": 64, "vocab_size": 61, "n_positions": 24}
TEXT = np.random.default_rng(0).integers(0, 61, 24)
TRANSFORMERS_4 = os.environ.get("NBGPT_TRANSFORMERS_4")
F = torch.nn.functional


class Made(NamedTuple):
    """A checkpoint, and what the program that it is of computes with it."""

    path: Path
    logits: np.ndarray  # [24, 61]
    adapters: tuple[tuple[Path, float], ...] = ()


def peer(**settings):
    return peer_of(**{**SIZES, **settings})


def params_of(model):
    """The weights under nbgpt's names, as float32 arrays."""
    return {name.removeprefix("transformer."): p.detach().numpy() for name, p in model.named_parameters()}


# transformers


def saved(folder, options=None, **settings):
    model = peer(**settings)
    model.save_pretrained(folder, **(options or {}))
    return Made(folder, logits_of(model, TEXT))


def bfloat16(folder):
    model = peer().bfloat16()
    model.save_pretrained(folder)
    return Made(folder, logits_of(model.float(), TEXT))


def head_beside_ties(folder):
    """A head of its own in a folder that says tie_word_embeddings: transformers 5 uses it."""
    peer(tie_word_embeddings=False).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    return Made(folder, logits_of(transformers.GPT2LMHeadModel.from_pretrained(folder).eval(), TEXT))


OF_TRANSFORMERS_4 = """
import json, os, sys
import numpy as np, torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
folder, safe = sys.argv[1], sys.argv[2] == "safetensors"
if os.path.exists(folder + "/tokenizer.json"):
    before = json.load(open(folder + "/tokenizer.json"))["pre_tokenizer"] or {}
    settings = {"add_prefix_space": before.get("add_prefix_space", False)}  # it overwrites that of the file
    PreTrainedTokenizerFast(tokenizer_file=folder + "/tokenizer.json", **settings).save_pretrained(folder)
model = GPT2LMHeadModel(GPT2Config(**json.loads(sys.argv[3]))).eval()
arrays = {name: torch.from_numpy(array) for name, array in np.load(folder + "/weights.npz").items()}
assert not model.transformer.load_state_dict(arrays, strict=False).unexpected_keys
model.save_pretrained(folder, safe_serialization=safe)
with torch.inference_mode():
    np.save(folder + "/logits.npy", model(torch.from_numpy(np.load(folder + "/text.npy"))[None]).logits[0].numpy())
"""


def saved_by_transformers_4(folder, form="safetensors", **settings):
    """The weights, and the vocabulary if there is one."""
    settings = {**SIZES, **settings}
    np.savez(folder / "weights.npz", **params_of(peer(**settings)))
    np.save(folder / "text.npy", TEXT)
    command = [sys.executable, "-c", OF_TRANSFORMERS_4, str(folder), form, json.dumps(settings)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": TRANSFORMERS_4})
    return Made(folder, np.load(folder / "logits.npy"))


# torch


def torch_saved(folder, name="pytorch_model.bin", container=lambda state: state, prefix="", zipped=True, **settings):
    """A state dict as torch saves it, beside the config.json of transformers."""
    model = peer(**settings)
    model.config.save_pretrained(folder)
    state = {prefix + key: tensor for key, tensor in model.state_dict().items()}
    torch.save(container(state), folder / name, _use_new_zipfile_serialization=zipped)
    return Made(folder / name, logits_of(model, TEXT))


def with_optimizer(key):
    def container(state):
        model = torch.nn.Linear(3, 3)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(3)).sum().backward()
        optimizer.step()
        return {"optimizer": optimizer.state_dict(), key: state, "epoch": 3, "loss": torch.tensor(0.5)}

    return container


def among_others(state):
    """With tensors of other purposes, of every kind."""
    kinds = (torch.complex64, torch.float8_e4m3fn, torch.uint16, torch.int8, torch.bool, torch.float64)
    return {**state, **{f"of {kind}": torch.ones(3).to(kind) for kind in kinds}}


# nanoGPT


def nanogpt(folder, bias=True, prefix="", **settings):
    """ckpt.pt of train.py; the logits by the formulas of its model.py, since it is no package."""
    model = peer(**settings)
    params = {name: torch.from_numpy(p) for name, p in params_of(model).items() if bias or not name.endswith(".bias")}
    state = {f"{prefix}transformer.{name}": p.T.contiguous() if is_matrix(name) else p for name, p in params.items()}
    state[f"{prefix}lm_head.weight"] = state[f"{prefix}transformer.wte.weight"]
    args = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 24, "bias": bias, "dropout": 0.0}
    args["vocab_size"] = model.config.vocab_size
    saved = with_optimizer("model")(state) | {"model_args": args, "iter_num": 7, "config": {"dataset": "tiny"}}
    torch.save(saved, folder / "ckpt.pt")
    return Made(folder, nanogpt_logits({name.removeprefix(prefix + "transformer."): p for name, p in state.items()}))


def is_matrix(name):
    return ".c_" in name and name.endswith("weight")


def nanogpt_logits(p):
    def norm(x, name):
        return F.layer_norm(x, (64,), p[f"{name}.weight"], p.get(f"{name}.bias"), 1e-5)

    def linear(x, name):
        return F.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))

    x = p["wte.weight"][TEXT] + p["wpe.weight"][: len(TEXT)]
    for block in ("h.0", "h.1"):
        heads = [
            part.view(-1, 4, 16).transpose(0, 1)
            for part in linear(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn").split(64, 1)
        ]
        attended = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(0, 1).reshape(-1, 64)
        x = x + linear(attended, f"{block}.attn.c_proj")
        x = x + linear(F.gelu(linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")), f"{block}.mlp.c_proj")
    return (norm(x, "ln_f") @ p["wte.weight"].T).numpy()


# Other programs


def llm_c(folder, version=3, **settings):
    """write_model of train_gpt2.py."""
    dtype = {3: torch.float32, 5: torch.bfloat16}[version]
    model = peer(**settings).to(dtype).float()
    params = {name: torch.from_numpy(p) for name, p in params_of(model).items()}
    n_vocab = model.config.vocab_size
    n_padded = -(-n_vocab // 128) * 128
    ordered = [F.pad(params["wte.weight"], (0, 0, 0, n_padded - n_vocab)), params["wpe.weight"]]
    for module in MODULES:
        for kind in ("weight", "bias"):
            names = [f"h.{layer}.{module}.{kind}" for layer in range(2)]
            ordered += [params[name].T if is_matrix(name) else params[name] for name in names]
    ordered += [params["ln_f.weight"], params["ln_f.bias"]]
    data = b"".join(p.contiguous().to(dtype).view(torch.uint8).numpy().tobytes() for p in ordered)
    header = struct.pack("<256i", 20240326, version, 24, n_vocab, 2, 4, 64, n_padded, *[0] * 248)
    (folder / "gpt2_tiny.bin").write_bytes(header + data)
    return Made(folder / "gpt2_tiny.bin", logits_of(model, TEXT))


def tensorflow(folder, name, **settings):
    """A folder with a TensorFlow checkpoint; the one that the file `checkpoint` does not name is an older one."""
    model = peer(**settings)
    entries, shard = {b"": b"\x08\x01\x10\x00"}, b""
    for key, p in params_of(model).items():
        data = np.ascontiguousarray(p).tobytes()
        shape = (1, *p.shape) if is_matrix(key) else p.shape
        entries[openai_name(key).encode()] = entry_of(shape, data, len(shard))
        shard += data
    (folder / INDEX.replace("model.ckpt", name)).write_bytes(table_of([block_of(sorted(entries.items()))]))
    (folder / SHARD.replace("model.ckpt", name)).write_bytes(shard)
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
    hparams = {"n_vocab": model.config.vocab_size, "n_ctx": 24, "n_embd": 64, "n_head": 4, "n_layer": 2}
    (folder / "hparams.json").write_text(json.dumps(hparams))
    if name != "model.ckpt":
        (folder / "model-900.index").write_bytes(b"an older one")
    return Made(folder, logits_of(model, TEXT))


def gguf(folder, kind=Type.F32, add_vocabulary=None, **settings):
    """add_vocabulary: what puts the vocabulary into a GGUFWriter."""
    model = peer(**settings)
    write_gguf(folder / "tiny.gguf", kind, params_of(model), add_vocabulary=add_vocabulary)
    if kind == Type.F16:  # the matrices are
        for name, p in model.named_parameters():
            if p.ndim == 2 and "wpe" not in name:
                p.data = p.data.half().float()
    return Made(folder / "tiny.gguf", logits_of(model, TEXT))


def adapter(folder, **settings):
    import peft

    base = peer()
    base.save_pretrained(folder / "base")
    model = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(r=4, target_modules=["c_attn"], **settings)).eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder / "adapter")
    return Made(folder / "base", logits_of(model.merge_and_unload(), TEXT), ((folder / "adapter", 1.0),))


WEIGHTS: dict[tuple[str, str], Callable[[Path], Made]] = {
    ("safetensors", "transformers 5"): saved,
    ("safetensors in shards", "transformers 5"): lambda folder: saved(folder, {"max_shard_size": "50KB"}),
    ("safetensors in bfloat16", "transformers 5"): bfloat16,
    ("head of its own", "transformers 5"): lambda folder: saved(folder, tie_word_embeddings=False),
    ("head of its own, said to be tied", "transformers 5"): head_beside_ties,
    ("activation silu", "transformers 5"): lambda folder: saved(folder, activation_function="silu"),
    ("state dict, zip", "torch"): torch_saved,
    ("state dict, legacy", "torch"): lambda folder: torch_saved(folder, zipped=False),
    ("DataParallel's `module.`", "torch"): lambda folder: torch_saved(folder, "model.pt", prefix="module."),
    ("torch.compile's `_orig_mod.`", "torch"): lambda folder: torch_saved(folder, "model.pth", prefix="_orig_mod."),
    ("`{'model_state_dict': ...}` with optimizer", "torch"): lambda folder: torch_saved(
        folder, "model.pt", with_optimizer("model_state_dict")
    ),
    ("the same, legacy", "torch"): lambda folder: torch_saved(
        folder, "model.pt", with_optimizer("model_state_dict"), zipped=False
    ),
    ("Lightning's `{'state_dict': ...}` with `model.`", "torch"): lambda folder: torch_saved(
        folder, "model.pt", with_optimizer("state_dict"), "model."
    ),
    ("state dict, zip, among other tensors", "torch"): lambda folder: torch_saved(folder, container=among_others),
    ("state dict, legacy, among other tensors", "torch"): lambda folder: torch_saved(
        folder, container=among_others, zipped=False
    ),
    ("nanoGPT's ckpt.pt", "torch"): nanogpt,
    ("the same, compiled, bias=False", "torch"): lambda folder: nanogpt(folder, bias=False, prefix="_orig_mod."),
    ("llm.c, version 3", "as train_gpt2.py"): llm_c,
    ("llm.c, version 5", "as train_gpt2.py"): lambda folder: llm_c(folder, 5),
    ("OpenAI's folder", "as TensorFlow"): lambda folder: tensorflow(folder, "model.ckpt"),
    ("gpt-2-simple's run1, of two checkpoints", "as TensorFlow"): lambda folder: tensorflow(folder, "model-1000"),
    ("GGUF, F32", "gguf"): gguf,
    ("GGUF, F16", "gguf"): lambda folder: gguf(folder, Type.F16),
    ("LoRA, merged by `convert --lora`", "PEFT"): adapter,
    ("rsLoRA with biases", "PEFT"): lambda folder: adapter(folder, use_rslora=True, bias="all"),
    ("safetensors", "transformers 4"): saved_by_transformers_4,
    ("pytorch_model.bin", "transformers 4"): lambda folder: saved_by_transformers_4(folder, "torch"),
}
"""(kind, writer) -> what makes one."""
