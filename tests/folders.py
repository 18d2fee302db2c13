"""Small models that read and write text: as folders in the hub's form, and as native files.

They have the small vocabulary of fixtures/tokenizer, whose ids are not in the order of its merges.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from models import config_of, random_params

from nbgpt.config import GPT2Config
from nbgpt.conversion.convert import convert
from nbgpt.formats import Checkpoint, Tensor
from nbgpt.tokenizer import ByteBPE

FIXTURES = Path(__file__).parent / "fixtures"
VOCABULARY = {"vocab": FIXTURES / "tokenizer" / "vocab.json", "merges": FIXTURES / "tokenizer" / "merges.txt"}
TOKENIZER = ByteBPE.from_files(**{"vocab_json": VOCABULARY["vocab"], "merges_txt": VOCABULARY["merges"]})
RECITED = "Naïve café 😀 日本語: it was a dark and stormy night.\n\nThe end"


def text_config(**changes) -> GPT2Config:
    return config_of(**{"n_vocab": TOKENIZER.n_vocab, **changes})


def reciter(text: str = RECITED, **changes) -> tuple[GPT2Config, dict[str, np.ndarray]]:
    """A model that writes this text and ends it, whatever it reads."""
    return reciter_of([*TOKENIZER.encode(text), TOKENIZER.eos_id], **{"n_vocab": TOKENIZER.n_vocab, **changes})


def reciter_of(ids: list[int], **changes) -> tuple[GPT2Config, dict[str, np.ndarray]]:
    """A model that writes these ids, whatever it reads: each position calls for a token.

    The layers add nothing, so the residual stream is all but the position's embedding: the next token's direction.
    """
    config = config_of(**{"n_layer": 1, "n_head": 1, "n_embd": 64, "n_ctx": 120, **changes})
    params = {name: np.zeros_like(values) for name, values in random_params(config).items()}
    wte = np.random.default_rng(0).standard_normal((config.n_vocab, config.n_embd), np.float32)
    for name in params:
        if ".ln_" in name and name.endswith("weight"):
            params[name] += 1
    params["ln_f.weight"] = np.full(config.n_embd, 10, np.float32)  # leaves no other token a chance
    params["wte.weight"] = wte
    params["wpe.weight"][: len(ids)] = 100 * wte[ids]
    return config, params


def ballot(logits: np.ndarray, **changes) -> tuple[GPT2Config, dict[str, np.ndarray]]:
    """A model with the same logits [n_vocab] after every text."""
    config = config_of(n_vocab=len(logits), **changes)
    params = random_params(config)
    params["ln_f.weight"] = np.zeros(config.n_embd, np.float32)
    params["ln_f.bias"] = np.eye(1, config.n_embd, dtype=np.float32)[0]
    params["wte.weight"][:, 0] = logits
    return config, params


def checkpoint_of(config: GPT2Config, params: dict[str, np.ndarray]) -> Checkpoint:
    tensors = {name: Tensor(values.shape, lambda values=values: values) for name, values in params.items()}
    return Checkpoint(config, tensors, [], VOCABULARY)


def write_text_model(path: Path, config: GPT2Config, params: dict, dtype: str = "float32", bos: bool = False) -> Path:
    """A native file with the small vocabulary."""
    convert(checkpoint_of(config, params), dtype, path, name=path.stem, bos=bos)
    return path


def write_random_model(path: Path, dtype: str = "float32", bos: bool = False, **changes) -> Path:
    """A native file with the small vocabulary and random weights; changes: of its config."""
    config = text_config(**changes)
    return write_text_model(path, config, random_params(config), dtype, bos)


def write_folder(folder: Path, config: GPT2Config, params: dict[str, np.ndarray]) -> Path:
    """A folder as transformers saves it."""
    from safetensors.numpy import save_file  # a free-threaded Python has no wheel of it, and does not need it elsewhere

    folder.mkdir(parents=True, exist_ok=True)
    fields = {
        "model_type": "gpt2",
        **{name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "n_inner")},
        **{"n_positions": config.n_ctx, "vocab_size": config.n_vocab, "activation_function": config.activation},
    }
    (folder / "config.json").write_text(json.dumps(fields))
    save_file(params, folder / "model.safetensors")
    for file in VOCABULARY.values():
        shutil.copyfile(file, folder / file.name)
    return folder
