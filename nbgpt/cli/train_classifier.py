"""`train-classifier`: a classifier from labelled texts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .parser import add, add_bos, add_model, load_model
from .terminal import note, printable, write

if TYPE_CHECKING:
    from ..tasks.training.classifier import Classifier
    from ..weights import Weights
    from .parser import Commands


def define_train_classifier(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "train-classifier", "make a classifier from labelled texts", _train)
    command.add_argument(
        "data", help="labelled texts: .csv, .tsv or .jsonl; if labels are lists, a text may have any number of labels"
    )
    add_model(command)
    add_bos(command, "begin each text with <|endoftext|>; default: as the model's file says")
    command.add_argument("--text-column", default="text", metavar="NAME", help="default: %(default)s")
    command.add_argument("--label-column", default="label", metavar="NAME", help="default: %(default)s")
    held_out = command.add_mutually_exclusive_group()
    held_out.add_argument(
        "--validation", type=float, default=0.2, metavar="X", help="share of the texts to measure with; default: 0.2"
    )
    held_out.add_argument("--validation-file", metavar="FILE", help="measure with the texts of this file instead")
    command.add_argument(
        "--pooling",
        choices=("last", "mean", "both"),
        default="both",
        help="what of a text's hidden states is read: the last token's, the mean of all, or both; default: %(default)s",
    )
    command.add_argument(
        "--layer",
        type=_layer,
        default="auto",
        metavar="N|auto",
        help="layer whose hidden states are read; default: the best of 7",
    )
    command.add_argument(
        "--seed", type=int, default=0, help="of the validation split and the folds; default: %(default)s"
    )
    command.add_argument(
        "-o", "--output", metavar="NAME", help="name or .safetensors file of the result; default: that of the data"
    )
    command.add_argument("--export", type=Path, metavar="FOLDER", help="write a folder for transformers too")


def _layer(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no layer: a whole number, or auto") from None


def _train(options: argparse.Namespace) -> None:
    from ..tasks.training.data import read_examples
    from ..tasks.training.logistic import require_scikit_learn
    from ..tasks.training.train import train

    require_scikit_learn()
    columns = options.text_column, options.label_column
    examples = read_examples(options.data, *columns)
    held_out = read_examples(options.validation_file, *columns) if options.validation_file else options.validation
    model = load_model(options)
    path = _output(options.output or Path(options.data).stem, model.weights)
    classifier = train(
        model,
        examples,
        validation=held_out,
        pooling=options.pooling,
        layer=options.layer,
        bos=options.bos,
        seed=options.seed,
        say=note,
    )
    _finish(classifier, path, options)


def _output(name: str, weights: Weights) -> Path:
    """The classifier's file. Raises ValueError for the name of a model that is no classifier."""
    from ..conversion.registry import file_name, find, models_folder
    from ..weights import is_head

    if name.endswith(".safetensors"):
        if Path(name).exists() and not is_head(Path(name)):
            raise ValueError(f"{name} is no classifier, and would be lost: choose another name with -o")
        return Path(name)
    if "/" in name or "\\" in name or name.startswith("."):
        raise ValueError(f"output is {name!r}; it must be a plain name, or a file that ends in .safetensors")
    other = find(name)
    if other is not None and not is_head(other):
        raise ValueError(f"{name!r} is the name of a model already, {other}: choose another one with -o")
    return models_folder() / file_name(name, weights.dtype)


def _finish(classifier: Classifier, path: Path, options: argparse.Namespace) -> None:
    """Write the files, and to standard output what was measured and where they are."""
    from ..tasks.training.report import as_text

    if options.export is not None:
        classifier.export(options.export)  # which may be refused, and then nothing is written
    name = options.output if options.output and not options.output.endswith(".safetensors") else None
    classifier.save(path, name or Path(options.output or options.data).stem)
    pages = [path.with_suffix(ending) for ending in (".html", ".md")]
    for page in pages:
        classifier.report(page)
    write(as_text(classifier.evaluation))
    files = {"classifier": path, "report": pages[0], "": pages[1], "exported": options.export}
    for label, file in files.items():
        if file is not None:
            write(f"{label:12} {printable(str(file))}\n")
