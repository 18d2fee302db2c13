"""`eval harness`: tasks of EleutherAI's lm-evaluation-harness."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..partial import whole_file
from .measures import add_json
from .parser import add, add_model, load_model
from .terminal import write

if TYPE_CHECKING:
    from .parser import Commands


def define_harness(measures: Commands) -> None:
    """Add the subcommand."""
    command = add(measures, "harness", "tasks of EleutherAI's lm-evaluation-harness (an extra)", _harness)
    command.add_argument("--tasks", required=True, help="names of tasks or groups, with commas between them")
    add_model(command)
    command.add_argument(
        "--include-path", metavar="DIR", help="folder with tasks of your own (YAML), beside those of the harness"
    )
    command.add_argument("--num-fewshot", metavar="N", type=int, help="examples before each; default: as the task says")
    command.add_argument("--limit", metavar="N", type=int, help="only the first N examples of each task")
    command.add_argument(
        "--bos", action="store_true", help="begin each text with <|endoftext|>; the harness's own model `hf` does not"
    )
    command.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="write all results to this file too, as JSON"
    )
    add_json(command)


def _harness(options: argparse.Namespace) -> None:
    from ..analysis.harness import HarnessModel, evaluate, table

    names = [name for name in options.tasks.split(",") if name]
    model = load_model(options)
    results = evaluate(
        HarnessModel(model, options.bos),
        names,
        include_path=options.include_path,
        num_fewshot=options.num_fewshot,
        limit=options.limit,
    )
    results["config"] |= {"model": model.name, "dtype": model.dtype}
    text = json.dumps(results, ensure_ascii=False, default=str)
    if options.output:
        with whole_file(options.output) as file:
            file.write(f"{text}\n".encode())
    write(f"{text}\n" if options.json else table(results))
