"""What published weights are known to answer, by sources that are not ours; and what the embedded model does. Greedy.

Where a source gives text alone, text is compared: encoding it again usually, not always, gives the ids it came from.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Continuation:
    """The ids, or the text, that follow a prompt of ids or text."""

    model: str
    prompt: str | list[int]
    expected: str | list[int]
    source: str
    dtype: str = "float32"


@dataclass(frozen=True)
class Logits:
    """The first logits after one of some ids."""

    ids: list[int]
    position: int
    expected: list[float]


_TRANSFORMERS = "transformers, tests/models/gpt2/test_modeling_gpt2.py"
_CTRANSLATE2 = "CTranslate2, python/tests/test_transformers.py"
_BLOG = "https://huggingface.co/blog/how-to-generate"
_TINYGRAD = "tinygrad, examples/gpt2.py"
_OURS = "nbgpt when the file was made: the same bits on every CPU with FMA"

CONTINUATIONS = [
    Continuation(
        "story-34m",
        "It was a dark and stormy night",
        ", and the stars were shining in the sky. The wind was blowing in the trees, and the wind was blowing in the"
        " trees. The trees were all dark, and the wind was blowing in the",
        _OURS,
        "int8",
    ),
    Continuation(
        "story-34m",
        "The old man looked at the sea and",
        " said: \"I am sorry to say, sir, that I have not been able to get a good deal of money to pay for the ship's"
        ' company."\n\n"I am sorry to say',
        _OURS,
        "int8",
    ),
    Continuation(
        "gpt2",
        [464, 3290],
        [373, 1043, 287, 257, 2214, 1474, 262, 16246, 286, 2688, 290, 2688, 27262, 13, 198, 198, 464, 3290],
        _TRANSFORMERS,
    ),
    Continuation(
        "gpt2",
        "Alan Turing theorized that computers would one day become",
        " the most powerful machines on the planet.\n\nThe computer is a machine that can perform complex calculations,"
        " and it can perform these calculations in a way that is very similar to the human brain.",
        "picoGPT, README.md",
    ),
    Continuation("gpt2", [50256], [198, 464, 717, 640, 314, 2497, 262, 649, 2196, 286], _CTRANSLATE2),
    Continuation("gpt2", "Hello, my dog is a little", " bit of a mess. I'm not sure if he's going", _TRANSFORMERS),
    Continuation("gpt2", "Today, I", "'m going to be doing a lot of research on this. I", _TRANSFORMERS),
    Continuation(
        "gpt2",
        [464, 7348, 4572],
        " is a small, lightweight, and lightweight aircraft that can be used for any type of",
        _TRANSFORMERS,
    ),
    Continuation(
        "gpt2",
        "I enjoy walking with my cute dog",
        ", but I'm not sure if I'll ever be able to walk with my dog. I'm not sure if I'll ever be able to walk with my"
        " dog.\n\nI'm not sure if I'll",
        _BLOG,
    ),
    Continuation(
        "gpt2-medium",
        "What is the answer to life, the universe, and everything?",
        "\n\nThe answer is that we are all one",
        _TINYGRAD,
    ),
    Continuation("gpt2-medium", "Hello.", " I'm a little late to the party, but", _TINYGRAD),
    Continuation(
        "gpt2-xl", "Reversible computing is", " a concept that has been around for a while, but it", "one public report"
    ),
]

LOGITS = [  # of gpt2
    Logits(
        [15496, 11, 314, 716],
        0,
        [
            *(-35.23624420, -35.32659531, -38.97534943, -39.39067459),
            *(-37.65318298, -38.67243576, -36.02489090, -36.48415375),
        ],
    ),
    Logits([15496, 50256, 1234], 2, [-76.941086, -79.28483, -80.43526, -80.43415, -80.22852]),
]
MEAN_OF_LOGITS = [15496, 11, 314, 716], -111.89471436
LARGEST_LOGITS = [15496, 50256, 1234], [11, 464, 262]
MEAN_NLL = [50256, 15496, 995, 0], 5.331855774


@dataclass(frozen=True)
class Benchmark:
    """What gpt2 (124M) scores in float32, to the digits that the source gives."""

    name: str  # of the measure, and the protocol if there are several
    file: str  # in $NBGPT_DATA
    expected: dict[str, float]
    tolerance: dict[str, float]  # the last digit, and a few examples on the edge
    source: str


_HARNESS = "lm-evaluation-harness"
_OF_HELLASWAG = "llm.c, dev/data/hellaswag.py"

BENCHMARKS = [
    Benchmark(
        "lambada",
        "lambada_openai.jsonl",  # EleutherAI/lambada_openai, the English one
        {"acc": 0.3256, "perplexity": 40.06},
        {"acc": 0.0004, "perplexity": 0.02},
        _HARNESS,
    ),
    Benchmark(
        "hellaswag lm-eval",
        "hellaswag_val.jsonl",  # rowanz/hellaswag
        {"acc": 0.2892, "acc_norm": 0.3114},
        {"acc": 0.0004, "acc_norm": 0.0004},
        f"{_HARNESS}, as quoted in {_OF_HELLASWAG}",
    ),
    Benchmark(
        "hellaswag llm.c",
        "hellaswag_val.jsonl",
        {"acc": 0.2859, "acc_norm": 0.2955},
        {"acc": 0.001, "acc_norm": 0.001},  # it multiplies in TF32
        _OF_HELLASWAG,
    ),
]
WIKITEXT = "wiki.test.raw", 29.94, "transformers, docs/source/en/perplexity.md: stride 1024"


def wikitext(text):
    """WikiText-2 as that page joins its lines: "\\n\\n" between them, and nothing in those that have only spaces."""
    return "\n\n".join(line if line.strip() else "" for line in text.splitlines(keepends=True))


def log_softmax(logits):  # float32 [n, n_vocab] -> float64
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
