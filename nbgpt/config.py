"""The configuration of a GPT-2: sizes and variants, and those of the official models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ACTIVATIONS = ("gelu_new", "gelu", "relu", "silu", "tanh", "quick_gelu")
"""An activation's place is its number in jobs and kernels: new ones go to the end."""
_SAME_ACTIVATION = {
    **dict.fromkeys(("gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"), "gelu_new"),
    **{"gelu_python": "gelu", "swish": "silu"},
}
_OTHER_NAMES = {
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
    "n_positions": "max_position_embeddings",
}
"""What transformers calls the sizes in every architecture (`GPT2Config.attribute_map`)."""
_FLAGS = ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tied_embeddings", "multi_label")
_LIMIT = 1 << 24  # no size of a real GPT-2 comes near: a larger number is a broken or hostile file


@dataclass(frozen=True)
class GPT2Config:
    """Sizes and variants of a GPT-2; the names follow OpenAI's `hparams.json` and Hugging Face's `config.json`.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3.
    """

    n_layer: int
    n_head: int
    n_embd: int
    n_ctx: int = 1024  # positions: the longest text that the model can read
    n_vocab: int = 50257
    n_inner: int = 0  # inner size of the MLP; 0: 4 * n_embd
    activation: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True  # divide q @ k.T by sqrt(head_dim)
    scale_attn_by_inverse_layer_idx: bool = False  # and by the layer, counted from 1
    tied_embeddings: bool = True  # the LM head is wte; False: a matrix of its own
    n_labels: int = 0  # rows of a sequence classifier's `score.weight`; 0: it has none
    multi_label: bool = False  # a classifier's labels are independent of each other

    def __post_init__(self) -> None:
        """Check every field. Raises ValueError that names the field, its value and what is allowed."""
        if self.n_inner == 0 and type(self.n_embd) is int:
            object.__setattr__(self, "n_inner", 4 * self.n_embd)
        for name in ("n_layer", "n_head", "n_embd", "n_ctx", "n_vocab", "n_inner"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value < _LIMIT:
                raise ValueError(f"config: {name} is {value!r:.80}; it must be a whole number from 1 to {_LIMIT - 1}")
        if type(self.n_labels) is not int or not 0 <= self.n_labels < _LIMIT:
            raise ValueError(f"config: n_labels is {self.n_labels!r:.80}; it must be a whole number, 0 for none")
        for name in _FLAGS:
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"config: {name} is {getattr(self, name)!r:.80}; it must be true or false")
        if self.n_embd % self.n_head:
            raise ValueError(f"config: n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"config: activation {self.activation!r:.80} is not one of {', '.join(ACTIVATIONS)}")
        epsilon = self.layer_norm_epsilon
        if not isinstance(epsilon, float) or not 0 < epsilon < 1:
            raise ValueError(f"config: layer_norm_epsilon is {epsilon!r:.80}; it must be between 0 and 1")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """(n_in, n_out) of each matrix of a layer, by its name within the layer."""
        return {
            "attn.c_attn.weight": (self.n_embd, 3 * self.n_embd),
            "attn.c_proj.weight": (self.n_embd, self.n_embd),
            "mlp.c_fc.weight": (self.n_embd, self.n_inner),
            "mlp.c_proj.weight": (self.n_inner, self.n_embd),
        }

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases; a tied embedding counts once."""
        block = 4 * self.n_embd**2 + 2 * self.n_embd * self.n_inner + 9 * self.n_embd + self.n_inner
        embeddings = (self.n_vocab * (1 if self.tied_embeddings else 2) + self.n_ctx) * self.n_embd
        return embeddings + self.n_layer * block + (2 + self.n_labels) * self.n_embd

    def attention_scale(self, layer: int) -> float:
        """The factor of q @ k.T in a layer, counted from 0."""
        scale = self.head_dim**-0.5 if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_hugging_face(cls, config: dict[str, Any]) -> GPT2Config:
        """Read a parsed `config.json`. Raises ValueError if it describes another architecture."""
        kind = config.get("model_type", "gpt2")
        if kind != "gpt2":
            raise ValueError(f"config: model_type is {kind!r:.80}; nbgpt runs GPT-2 only (model_type 'gpt2')")
        config = _with_own_names(config)
        missing = [name for name in ("n_layer", "n_head", "n_embd") if name not in config]
        if missing:
            raise ValueError(f"config: {', '.join(missing)} missing; is this the config.json of a GPT-2?")
        if config.get("add_cross_attention"):
            raise ValueError("config: add_cross_attention is true; nbgpt runs decoder-only GPT-2s")
        activation = config.get("activation_function", "gelu_new")
        return cls(
            n_layer=config["n_layer"],
            n_head=config["n_head"],
            n_embd=config["n_embd"],
            n_ctx=config.get("n_positions", config.get("n_ctx", 1024)),
            n_vocab=config.get("vocab_size", 50257),
            n_inner=config.get("n_inner") or 0,
            activation=_SAME_ACTIVATION.get(activation, activation),
            layer_norm_epsilon=config.get("layer_norm_epsilon", 1e-5),
            scale_attn_weights=_flag(config, "scale_attn_weights", True),
            scale_attn_by_inverse_layer_idx=_flag(config, "scale_attn_by_inverse_layer_idx", False),
            tied_embeddings=_flag(config, "tie_word_embeddings", True),
            multi_label=config.get("problem_type") == "multi_label_classification",
        )


def _flag(config: dict[str, Any], name: str, default: bool) -> Any:
    """A flag, which may be null."""
    return default if config.get(name) is None else config[name]


def _with_own_names(config: dict[str, Any]) -> dict[str, Any]:
    """The same with GPT-2's names of the sizes. Raises ValueError if a size stands there twice and differs."""
    config = dict(config)
    for name, other in _OTHER_NAMES.items():
        if other in config and config.setdefault(name, config[other]) != config[other]:
            raise ValueError(
                f"config: {name} is {config[name]!r:.20} and {other} is {config[other]!r:.20}, which are two names of "
                "one size: keep the right one"
            )
    return config


OFFICIAL = {
    "gpt2": GPT2Config(n_layer=12, n_head=12, n_embd=768),
    "gpt2-medium": GPT2Config(n_layer=24, n_head=16, n_embd=1024),
    "gpt2-large": GPT2Config(n_layer=36, n_head=20, n_embd=1280),
    "gpt2-xl": GPT2Config(n_layer=48, n_head=25, n_embd=1600),
    "distilgpt2": GPT2Config(n_layer=6, n_head=12, n_embd=768),
}
"""The published models, by their names on the Hugging Face hub."""
