"""Small random models, as native files and as parameters of the reference."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import reference
from reference import Bfloat16, Quantized, QuantizedHead, RoundingEmbedding

from nbgpt import weights
from nbgpt.abi.layout import HEAD_DTYPE
from nbgpt.config import GPT2Config
from nbgpt.conversion.convert import convert
from nbgpt.engine.engine import Engine
from nbgpt.engine.kv_cache import KVDtype, Sequence
from nbgpt.engine.request import Request
from nbgpt.formats import Checkpoint, Tensor
from nbgpt.formats.names import expected_shapes
from nbgpt.sampling.params import SamplingParams

_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "U8": np.uint8}
VARIANTS = {
    "plain": {},
    "n_inner": {"n_inner": 100},
    "gelu": {"activation": "gelu"},
    **{name: {"activation": name} for name in ("relu", "silu", "tanh", "quick_gelu")},
    "inverse_layer_idx": {"scale_attn_by_inverse_layer_idx": True},
    "unscaled": {"scale_attn_weights": False},
    "untied": {"tied_embeddings": False},
    "epsilon": {"layer_norm_epsilon": 1e-2},
    "classifier": {"n_labels": 3},
    "head_dim 20": {"n_embd": 40, "n_head": 2},
    "head_dim 64": {"n_embd": 128, "n_head": 2, "n_ctx": 70},
    "one head": {"n_embd": 80, "n_head": 1},
    "vocabulary of 300": {"n_vocab": 300},
}
"""What configs differ in from each other, and sizes that leave tails everywhere."""


def config_of(**changes) -> GPT2Config:
    return GPT2Config(**{"n_layer": 2, "n_head": 3, "n_embd": 48, "n_ctx": 200, "n_vocab": 61, **changes})


def random_params(config: GPT2Config, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights for which every part of the model matters.

    Attention scores spread over several units, so that their scale matters. The feed-forward layer works around -2.5,
    where two forms of GELU differ by several per cent of what little they let through, and its output is scaled up to
    the size of the residual stream.
    """
    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in expected_shapes(config):
        values = rng.standard_normal(shape, np.float32)
        if name.endswith("c_fc.bias"):
            values = 0.1 * values - 2.5
        elif name.endswith("bias"):
            values *= 0.1
        elif ".ln_" in name or name.startswith("ln_"):
            values = 1 + 0.1 * values
        elif name.startswith("h."):
            gain = 1.0 if "c_fc" in name else 40.0 if "mlp.c_proj" in name else 1.0 if "c_attn" in name else 1.5
            values *= gain / np.sqrt(shape[0])
        params[name] = values.astype(np.float32)
    return params


def write_native(path: Path, params: dict[str, np.ndarray], config: GPT2Config, dtype: str) -> Path:
    tensors = {name: Tensor(values.shape, lambda values=values: values) for name, values in params.items()}
    convert(Checkpoint(config, tensors, []), dtype, path, name="random")
    return path


def open_model(path: Path, n_threads: int = 1, kv_dtype: KVDtype = "float32", kv_memory: int = 64 << 20) -> Engine:
    return Engine(weights.load(path), n_threads, kv_dtype, kv_memory)


def request_of(
    engine: Engine, prompt: list[int], max_tokens: int = 200, params: SamplingParams | None = None, **options
) -> Request:
    """A request; options are those of `Request` and of `SamplingParams`, instead of what params say."""
    of_request = {name: options.pop(name) for name in ("speculation", "kept") if name in options}
    if "prefix" in options:
        options["prefix"] = tuple(options["prefix"])
    params = replace(params or SamplingParams(temperature=0), max_tokens=max_tokens, **options)
    return Request(engine.config, prompt, params, **of_request)


def advance(engine: Engine, requests) -> None:
    """One step for these requests, and for those that other threads ask for."""
    engine.advance(requests, lambda: False)


def run(engine: Engine, requests: list[Request], batch_size: int = 16):
    """Let requests grow together -> after each step those that took part in it."""
    for request in requests:
        engine.add(request)
    try:
        while growing := [request for request in requests if not request.finish_reason][:batch_size]:
            advance(engine, growing)
            for request in growing:
                if request.error:
                    raise request.error
            yield growing
    finally:
        engine.retire(requests)


def generate(engine: Engine, prompt: list[int], max_tokens: int, params: SamplingParams | None = None, **options):
    """The ids that continue a prompt."""
    return list(engine.tokens(request_of(engine, prompt, max_tokens, params, **options)))


def read(model: Engine, ids, sequence: Sequence | None = None, chunk: int = 512) -> np.ndarray:
    """Append ids to a sequence (a new one by default), some at a time -> logits [n, n_vocab] after every one."""
    sequence = Sequence() if sequence is None else sequence
    parts = [[int(token) for token in ids[start : start + chunk]] for start in range(0, len(ids), chunk)]
    return np.concatenate(
        [model.runner.forward(part, [sequence] * len(part), range(len(part))).copy() for part in parts]
    )


def read_together(model: Engine, texts) -> list[np.ndarray]:
    """Logits [n, n_vocab] of each text, all of them read in one pass."""
    tokens = [token for text in texts for token in text]
    rows = [sequence for text in texts for sequence in [Sequence()] * len(text)]
    logits = model.runner.forward(tokens, rows, range(len(tokens))).copy()
    return np.split(logits, np.cumsum([len(text) for text in texts])[:-1])


def native_params(native: weights.Weights) -> dict[str, object]:
    """The parameters that a native file holds, for the reference: matrices [n_in, n_out] of what the file stores."""
    shapes = dict(expected_shapes(native.config))
    params: dict[str, object] = {}
    for name, shape in shapes.items():
        if name in ("wte.weight", "lm_head.weight"):
            matrix = _matrix(native, name, HEAD_DTYPE[native.dtype], *shape)
            if isinstance(matrix, Quantized):
                matrix = QuantizedHead(**vars(matrix))
            params[name] = matrix.T if isinstance(matrix, np.ndarray) else RoundingEmbedding(matrix)
        elif name.startswith("h.") and len(shape) == 2:
            params[name] = _matrix(native, name, native.dtype, *reversed(shape))
        else:
            params[name] = _tensor(native, name)[tuple(slice(n) for n in shape)]
    return params


def _tensor(native: weights.Weights, name: str) -> np.ndarray:
    entry = native.entries[name]
    return native.block[entry.start : entry.stop].view(_DTYPES[entry.dtype]).reshape(entry.shape)


def _matrix(native: weights.Weights, name: str, dtype: str, n_out: int, n_in: int) -> object:
    values = _tensor(native, name)
    group = reference.GROUP[dtype]
    o, k = np.indices((n_out, reference.padded(n_in, group)))
    if dtype == "bfloat16":
        bits = values[reference.place_bfloat16(o, k)].astype(np.uint32) << 16
        return Bfloat16(bits.view(np.float32)[:, :n_in])
    if dtype in ("float32", "float16"):
        return values[reference.place_float(o, k)].astype(np.float32).T
    if dtype == "int8":
        numbers = values[reference.place_int8(o, k)].astype(np.int64) - 128
    else:
        place, shift = reference.place_int4(o, k)
        numbers = values[place].astype(np.int64) >> shift & 15
    scales_at = reference.place_scale(*np.indices((n_out, numbers.shape[1] // group)))
    scales = _tensor(native, name + ".scale")[scales_at].astype(np.float32)
    offsets = _tensor(native, name + ".offset")[scales_at].astype(np.float32) if dtype == "int4" else None
    return Quantized(numbers.reshape(n_out, -1, group), scales, offsets, n_in)
