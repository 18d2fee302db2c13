"""GPT-2 in plain NumPy: what the kernels are measured against, and the shortest way to see what they compute.

Read it from the top: each function uses only those above it. One text at a time, n_seq tokens long; arithmetic is
float64 where the kernels use float32. Parameters are a dictionary of arrays under the names of OpenAI's release, with
matrices [n_in, n_out]. The second part spells out the native file's number formats, as matrices that can stand in
the same dictionary.

Sources: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; Vaswani et al. 2017, "Attention Is
All You Need"; https://github.com/openai/gpt-2/blob/master/src/model.py.
"""

import math
from dataclasses import dataclass

import numpy as np

# --- The model -------------------------------------------------------------------------------------------------------


def gelu_new(x):
    """The tanh form that GPT-2 was trained with (Hendrycks and Gimpel 2016)."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu(x):
    """x times the probability that a normal variable is below x; erfc keeps its digits far below zero."""
    return 0.5 * x * np.vectorize(math.erfc, otypes=[np.float64])(-x / math.sqrt(2))


def relu(x):
    return np.maximum(x, 0)


def silu(x):
    """x times the logistic function (Elfwing et al. 2017), which tanh computes without overflow."""
    return 0.5 * x * (1 + np.tanh(x / 2))


def quick_gelu(x):
    return silu(1.702 * x) / 1.702


ACTIVATIONS = {
    "gelu_new": gelu_new,
    "gelu": gelu,
    "relu": relu,
    "silu": silu,
    "tanh": np.tanh,
    "quick_gelu": quick_gelu,
}


def softmax(x):
    """Numbers to probabilities, along the last axis; subtracting the maximum changes nothing but overflow."""
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def layer_norm(x, weight, bias, epsilon=1e-5):  # [n_seq, n_embd] -> [n_seq, n_embd]
    """Each row to mean 0 and variance 1, then a gain and a shift for each channel (Ba et al. 2016)."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * weight + bias


def linear(x, weight, bias):  # [n_seq, n_in], [n_in, n_out], [n_out] -> [n_seq, n_out]
    return x @ weight + bias


def attention(q, k, v, scale):  # [n_query, head_dim], [n_key, head_dim] x 2 -> [n_query, head_dim]
    """A mean of the values, weighted by how well each key fits the query; the queries are the last n_query tokens.

    Nobody sees the future: a token looks at itself and at those before it.
    """
    scores = scale * (q @ k.T)
    n_query, n_key = scores.shape
    future = np.triu(np.ones((n_query, n_key), bool), k=1 + n_key - n_query)
    return softmax(np.where(future, -np.inf, scores)) @ v


def causal_self_attention(x, params, n_head, scale):  # [n_seq, n_embd] -> [n_seq, n_embd]
    """Every head looks at its own slice of the channels."""
    qkv = linear(x, params["c_attn.weight"], params["c_attn.bias"])  # [n_seq, 3 n_embd]
    q, k, v = (np.split(channels, n_head, axis=-1) for channels in np.split(qkv, 3, axis=-1))
    heads = [attention(q[head], k[head], v[head], scale) for head in range(n_head)]
    return linear(np.concatenate(heads, axis=-1), params["c_proj.weight"], params["c_proj.bias"])


def mlp(x, params, activation):  # [n_seq, n_embd] -> [n_seq, n_embd]
    """The feed-forward layer: each token by itself, through n_inner channels and back."""
    inner = ACTIVATIONS[activation](linear(x, params["c_fc.weight"], params["c_fc.bias"]))  # [n_seq, n_inner]
    return linear(inner, params["c_proj.weight"], params["c_proj.bias"])


def part(params, prefix):
    """The parameters below a name."""
    return {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}


def block(x, params, config, layer):  # [n_seq, n_embd] -> [n_seq, n_embd]
    """One layer: each half reads the residual stream through a LayerNorm and adds to it what it found."""
    epsilon, scale = config.layer_norm_epsilon, 1.0
    if config.scale_attn_weights:
        scale /= math.sqrt(config.n_embd // config.n_head)
    if config.scale_attn_by_inverse_layer_idx:
        scale /= layer + 1
    normed = layer_norm(x, params["ln_1.weight"], params["ln_1.bias"], epsilon)
    x = x + causal_self_attention(normed, part(params, "attn."), config.n_head, scale)
    normed = layer_norm(x, params["ln_2.weight"], params["ln_2.bias"], epsilon)
    return x + mlp(normed, part(params, "mlp."), config.activation)


def gpt2(ids, params, config):  # [n_seq] -> [n_seq, n_vocab]
    """The logits of the token after each of ids."""
    wte, wpe = params["wte.weight"], params["wpe.weight"]
    x = wte[ids].astype(np.float64) + wpe[: len(ids)]
    for layer in range(config.n_layer):
        x = block(x, part(params, f"h.{layer}."), config, layer)
    x = layer_norm(x, params["ln_f.weight"], params["ln_f.bias"], config.layer_norm_epsilon)
    return x @ (wte if config.tied_embeddings else params["lm_head.weight"]).T


# --- Numbers of the native file --------------------------------------------------------------------------------------
#
# A matrix lies in the file as [n_out, n_in], padded with zeros to whole tiles of outputs and groups of inputs. A
# formula says where the weight of output o and input k is.

GROUP = {"float32": 1, "float16": 1, "bfloat16": 32, "int8": 64, "int4": 32}  # inputs that share a scale or a sum
TILE = 32  # outputs are padded to a multiple of this many


def place_float(o, k):  # in [n_out / 16, n_in, 16]
    return o // 16, k, o % 16


def place_bfloat16(o, k):  # in [n_out / 16, n_in / 2, 16, 2], the upper 16 bits of a float32
    return o // 16, k // 2, o % 16, k % 2


def place_int8(o, k):  # in [n_out / 16, n_in / 4, 16, 4], bytes; a weight is stored plus 128
    return o // 16, k // 4, o % 16, k % 4


def place_int4(o, k):  # in [n_out / 16, n_in / 8, 16, 4], bytes: the lower half of one is the first four inputs'
    return (o // 16, k // 8, o % 16, k % 4), 4 * (k // 4 % 2)


def place_scale(o, group):  # in [n_out / 16, n_in / group size, 16], float16: also where an offset is
    return o // 16, group, o % 16


def padded(n, multiple):
    return -(-n // multiple) * multiple


def fma(x, y, z):
    """x * y + z in float32, rounded once: a float64 holds the product exactly."""
    return (np.float64(x) * np.float64(y) + np.float64(z)).astype(np.float32)


def bfloat16(x, least):
    """float32 with 8 of its 24 bits, rounded half to even; 0 where the magnitude is below `least`."""
    mantissa, exponent = np.frexp(x)  # 0.5 <= |mantissa| < 1
    return np.where(np.abs(x) < least, 0, np.ldexp(np.rint(mantissa * 256), exponent - 8)).astype(np.float32)


@dataclass(frozen=True)
class Bfloat16:
    """A matrix [n_in, n_out] of bfloat16.

    x @ matrix is what AMX computes, in its order: of 32 inputs the even ones and the odd ones each in a chain of
    additions, which are then added to each other and to the sum before. A product has 16 bits, so float32 holds it.
    """

    values: np.ndarray  # float32 [n_out, n_in]

    __array_ufunc__ = None  # leaves x @ matrix to __rmatmul__

    def __rmatmul__(self, x):  # [n_rows, n_in] -> [n_rows, n_out]
        x = bfloat16(np.float32(x), LEAST_ACTIVATION)
        out = np.zeros((len(x), len(self.values)), np.float32)
        for block in range(0, x.shape[1], GROUP["bfloat16"]):
            chains = np.zeros((2, *out.shape), np.float32)
            for k in range(block, min(block + GROUP["bfloat16"], x.shape[1])):
                chains[k % 2] += x[:, k, None] * self.values[:, k]
            out += chains[0] + chains[1]
        return out

    def weights(self):  # -> [n_out, n_in]
        return self.values


LEAST_WEIGHT, LEAST_ACTIVATION = 2.0**-64, 2.0**-48  # smaller numbers of a product count as zeros with bfloat16
SMALLEST = np.float32(1e-30)  # a group whose largest activation is not above it counts as zeros


def quantize_rows(x, group, highest=127):  # [n_rows, n_in] -> [n_rows, n_groups, group], [n_rows, n_groups]
    """Activations as whole numbers in -highest..highest, rounded half to even, and the largest of each group."""
    n_rows, n_in = x.shape
    values = np.zeros((n_rows, padded(n_in, group)), np.float32)
    values[:, :n_in] = x
    values = values.reshape(n_rows, -1, group)
    largest = np.abs(values).max(axis=-1)
    used = largest > SMALLEST
    inverse = np.where(used, np.float32(highest) / np.where(used, largest, 1), np.float32(0))
    return np.rint(values * inverse[..., None]).astype(np.int64), largest


@dataclass(frozen=True)
class Quantized:
    """A matrix [n_in, n_out] of whole numbers in groups of inputs: weight = number * scale + offset.

    x @ matrix is what the kernels compute, in their order: x in 8 bits, whole numbers multiplied and added exactly,
    then each group scaled and added to the sum of those before it in float32.
    """

    numbers: np.ndarray  # [n_out, n_groups, group]: -127..127 with 8 bits, 0..15 with 4
    scales: np.ndarray  # float32 [n_out, n_groups]
    offsets: np.ndarray | None  # float32 [n_out, n_groups] with 4 bits
    n_in: int

    __array_ufunc__ = None  # leaves x @ matrix to __rmatmul__

    def __rmatmul__(self, x):  # [n_rows, n_in] -> [n_rows, n_out]
        numbers, largest = quantize_rows(x, self.numbers.shape[2])
        return self.product(numbers, largest / np.float32(127))

    def product(self, x, x_scales):  # [n_rows, n_groups, group], [n_rows, n_groups] -> [n_rows, n_out]
        out = np.zeros((len(x), len(self.numbers)), np.float32)
        for g in range(x.shape[1]):
            x_scale = x_scales[:, g, None]
            if self.offsets is not None:
                sums = x_scale * x[:, g].sum(axis=-1, keepdims=True).astype(np.float32)
                out = fma(sums, self.offsets[:, g], out)
            dots = x[:, g] @ self.numbers[:, g].T
            out = fma(dots, x_scale * self.scales[:, g], out)
        return out

    def weights(self):  # -> [n_out, n_in]
        """What the numbers stand for."""
        offsets = 0 if self.offsets is None else self.offsets[..., None]
        values = self.numbers.astype(np.float32) * self.scales[..., None] + offsets
        return values.reshape(len(values), -1)[:, : self.n_in]


class QuantizedHead(Quantized):
    """The matrix that makes the logits: x in 16 bits, as two products with 8."""

    def __rmatmul__(self, x):  # [n_rows, n_in] -> [n_rows, n_out]
        numbers, largest = quantize_rows(x, self.numbers.shape[2], highest=127 * 256)
        high = np.floor_divide(numbers + 128, 256)
        low = numbers - 256 * high  # -128..127
        return self.product(high, largest / np.float32(127)) + self.product(low, largest / np.float32(127 * 256))


@dataclass(frozen=True)
class RoundingEmbedding:
    """A token matrix [n_vocab, n_embd]: its rows go in, its transpose makes the logits of rounded activations."""

    T: QuantizedHead | Bfloat16

    def __getitem__(self, ids):
        return self.T.weights()[ids]
