"""One tiny GPT-2 in every kind of checkpoint, each by its own writer where that can be installed.

`test_zoo.py` tests each; run as a script, this writes the table in zoo.md:

    PYTHONPATH=.:tests:tests/parity python tests/parity/zoo.py

Checkpoints of transformers 4 are written by itself if NBGPT_TRANSFORMERS_4 names the folder of
`pip install --no-deps --target FOLDER "transformers<5" "huggingface_hub<1" "tokenizers<0.23"`.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from models import open_model, read
from test_transformers import torch, transformers
from test_vocabularies import decode, encode
from trained_vocabularies import TEXTS
from zoo_checkpoints import TEXT, TRANSFORMERS_4, WEIGHTS, Made
from zoo_vocabularies import FORMS, REFUSED, VOCABULARIES, make

from nbgpt.conversion.convert import convert
from nbgpt.conversion.lora import merge
from nbgpt.formats import open_checkpoint, read_vocabulary
from nbgpt.weights import load, tokenizer_of


def difference(made: Made, output: Path) -> float:
    """The largest difference of nbgpt's float32 logits, relative to the largest logit."""
    convert(merge(open_checkpoint(made.path), made.adapters), "float32", output)
    return float(np.abs(read(open_model(output), TEXT) - made.logits).max() / np.abs(made.logits).max())


def with_vocabulary(kind: str, form: str, folder: Path) -> tuple[float, bool]:
    """The difference of the logits, and whether all ids and texts are those of transformers. Raises FormatError."""
    made, peer = make(kind, form, folder)
    tokenizer = read_vocabulary(open_checkpoint(made.path)).tokenizer
    off = difference(made, folder / "ours.safetensors")
    assert tokenizer_of(load(folder / "ours.safetensors")) == tokenizer
    ids = [encode(peer, text) for text in TEXTS]
    are_equal = [tokenizer.encode(text) for text in TEXTS] == ids
    return off, are_equal and [tokenizer.decode(these) for these in ids] == [decode(peer, these) for these in ids]


def can_be_made(form: str) -> bool:
    return bool(TRANSFORMERS_4) or "transformers 4" not in form


def in_a_folder(cell: Callable[[Path], str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return cell(Path(folder))


def weights_cell(checkpoint: tuple[str, str], folder: Path) -> str:
    return f"{difference(WEIGHTS[checkpoint](folder), folder / 'ours.safetensors'):.1e}"


def vocabulary_cell(kind: str, form: str, folder: Path) -> str:
    if (kind, form) in REFUSED:
        return "refused"
    off, are_equal = with_vocabulary(kind, form, folder)
    return f"{off:.1e}, {'equal' if are_equal else 'not equal'}"


def weights_table() -> str:
    made = [checkpoint for checkpoint in WEIGHTS if can_be_made(checkpoint[1])]
    cells = [[*checkpoint, in_a_folder(partial(weights_cell, checkpoint))] for checkpoint in made]
    return table([["checkpoint", "writer", "difference"], *cells])


def vocabularies_table() -> str:
    forms = [form for form in FORMS if can_be_made(form)]
    cells = [
        [kind.replace("_", " "), *(in_a_folder(partial(vocabulary_cell, kind, form)) for form in forms)]
        for kind in VOCABULARIES
    ]
    return table([["vocabulary", *forms], *cells])


def table(rows: list[list[str]]) -> str:
    head, *rest = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *rest])


HEAD = """\
# What other programs write, and nbgpt reads

Made by zoo.py with torch {torch} and transformers {transformers}; test_zoo.py tests each line.

## Weights

The largest difference of the logits of one text in float32, relative to the largest logit, from those of the program
that the checkpoint is of. transformers 4 ignores a head that is stored beside `tie_word_embeddings: true`; transformers
5 and nbgpt use it.

{weights}

## Vocabularies

Each kind of vocabulary, trained on a few lines, in a GGUF file or beside the other checkpoints: the difference of the
logits, and whether all ids and texts are those of transformers. Refused, in a line that says what to do, are models
without a vocabulary whose embedding does not have GPT-2's size, and vocabularies that a GGUF file cannot hold (words,
pre-tokenizers that have no name in llama.cpp, normalizers) or holds in a form that no GPT-2 has (BERT's).

{vocabularies}
"""

if __name__ == "__main__":
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    Path(__file__).with_suffix(".md").write_text(
        HEAD.format(**versions, weights=weights_table(), vocabularies=vocabularies_table())
    )
