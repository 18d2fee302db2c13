"""`batch`: a file of prompts to a file of answers, which goes on where it was after a crash."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..sampling.declaration import GROUPS
from ..text.options import OPTIONS
from .generation_options import add_option, given_options
from .lines import LinesSkippedError
from .parser import add, add_model, load_model
from .terminal import note, write

if TYPE_CHECKING:
    from ..batch.job import Job
    from ..batch.run import Files, Runner
    from .parser import Commands

_NOT_OFFERED = {"seed", "batch_size", "max_time", "logprobs", "echo", "draft_model", "prompt_lookup"}
"""Options of `generate` that are declared apart, that depend on the machine, or that are for one text alone."""
_OF_TASK: Mapping[str, set[str]] = {
    "generate": OPTIONS.keys() - _NOT_OFFERED,
    "score": {"bos"},
    "embed": {"bos", "pooling", "normalize"},
    "classify": {"bos"},
    "rank": {"bos", "normalize", "choice", "choices_column"},
    "choices": {"bos", "normalize", "choice", "choices_column"},
}
_EXAMPLES = """\
examples:
  python -m nbgpt batch prompts.jsonl -o answers.jsonl --max-tokens 100
  python -m nbgpt batch articles.csv -o summaries.jsonl --prompt "{text} TL;DR:" --id number
  python -m nbgpt batch reviews/ -o labels.jsonl --task choices --prompt "{review} It was" \\
      --choice " good" --choice " bad"

After a crash the same command goes on where it was. docs/batch.md walks through all of it.
"""


def define_batch(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "batch", "answer every row of a file, and go on after a crash", _batch)
    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, _EXAMPLES
    _add_files(command)
    _add_task(command)
    add_model(command)
    _add_machines(command)
    groups = {name: command.add_argument_group(name, about) for name, about in GROUPS.items()}
    for name in OPTIONS:
        if OPTIONS[name].flag and name not in _NOT_OFFERED:
            add_option(groups[OPTIONS[name].group], OPTIONS[name])


def _add_files(command: argparse._ActionsContainer) -> None:
    option = command.add_argument
    option("input", help="rows: .jsonl, .csv, .tsv, .parquet, or a folder of these; - is standard input")
    option("-o", "--output", required=True, type=Path, metavar="FILE", help="the answers, JSON lines: .jsonl")
    option("--format", choices=("jsonl", "csv", "tsv", "parquet"), help="of the input; default: by its name")
    option("--overwrite", action="store_true", help="begin anew, whatever an earlier run has done")
    option("--shard", type=_part, default=(0, 1), metavar="I/N", help="do part I (from 0) of N, with its own output")
    option("--shard-rows", type=int, metavar="N", help="rows of a shard, kept as one file; default: 512")
    option("--max-errors", type=int, metavar="N", help="end the run when more than N rows fail; default: never")
    option("--json", action="store_true", help="write a summary to standard output, as JSON")
    option("--prometheus", metavar="FILE|URL", help="keep metrics in a text file, or push them to a gateway")


def _add_task(command: argparse._ActionsContainer) -> None:
    option = command.add_argument
    option("--task", choices=tuple(_OF_TASK), default="generate", help="default: %(default)s")
    option(
        "--prompt",
        metavar="TEXT",
        help='the prompt, with columns in braces: "Summarize: {text}"; default: column prompt, else text',
    )
    option("--template", metavar="FILE", help="a Jinja template that makes the prompt; columns are variables")
    option("--id", metavar="COLUMN", help="ids, from which the rows' seeds are made; default: their contents")
    option("--answer", default="answer", metavar="COLUMN", help="that gets the answer; default: %(default)s")
    option("--chat-template", metavar="FILE", help='for chats in OpenAI\'s format: a Jinja file, or "plain"')
    own = argparse.SUPPRESS
    option(
        "--pooling", choices=("mean", "last"), default=own, help="for embed: mean or last token's vector; default: mean"
    )
    option(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        default=own,
        help="for embed: vectors of length 1; for rank and choices: log-probability per token; default: yes",
    )
    option(
        "--choices-column",
        metavar="COLUMN",
        default=own,
        help="for rank and choices: each row's list of choices, instead of --choice",
    )
    add_option(command, OPTIONS["seed"], "0")


def _add_machines(command: argparse._ActionsContainer) -> None:
    add_option(command, OPTIONS["batch_size"], "64")
    option = command.add_argument
    option("--workers", type=_count, metavar="N", help="processes on this machine; default: one for each NUMA node")
    option("--cpus-per-worker", type=_count, metavar="N", help="cores of a worker; default: a NUMA node's")
    option("--bind", action="store_true", help="bind each worker to the CPUs of its cores")
    option("--ray", metavar="ADDRESS|local", help='work on a Ray cluster; needs pip install "nbgpt[ray]"')


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _part(text: str) -> tuple[int, int]:
    part, slash, n = text.partition("/")
    if not (slash and part.isdecimal() and n.isdecimal() and int(part) < int(n)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part: 0/8 is the first of 8, 7/8 the last")
    return int(part), int(n)


def _batch(options: argparse.Namespace) -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy would start threads that spin beside those of the model
    from ..batch.progress import publisher
    from ..batch.run import run

    files, job = _files(options), _job(options)
    publish = publisher(options.prometheus, f"{files.part}/{files.n_parts}") if options.prometheus else None
    summary, output = run(files, job, _runner(options), options.max_errors, publish)
    note(str(summary))
    if options.json:
        write(json.dumps({**summary.to_dict(), "output": str(output.path)}) + "\n")
    if summary.failed:
        raise LinesSkippedError(f"{summary.failed} of {summary.rows} rows failed: {output.errors_path} has the reasons")


def _files(options: argparse.Namespace) -> Files:
    from ..batch.run import SHARD_ROWS, Files

    shard_rows = SHARD_ROWS if options.shard_rows is None else options.shard_rows
    for name, value, least in (("shard-rows", shard_rows, 1), ("max-errors", options.max_errors, 0)):
        if value is not None and value < least:
            raise ValueError(f"--{name} is {value}; it must be at least {least}")
    part, n_parts = options.shard
    return Files(
        source=options.input,
        output=options.output,
        form=options.format,
        part=part,
        n_parts=n_parts,
        shard_rows=shard_rows,
        overwrite=options.overwrite,
    )


def _job(options: argparse.Namespace) -> Job:
    from ..batch.job import Job

    return Job(
        options.task,
        options.prompt,
        None if options.template is None else _text(options.template),
        options.id,
        options.answer,
        OPTIONS["seed"].checked(getattr(options, "seed", 0)),
        _of_task(options),
        options.chat_template if options.chat_template in (None, "plain") else _text(options.chat_template),
    )


def _text(file: str) -> str:
    return Path(file).read_text(encoding="utf-8")


def _of_task(options: argparse.Namespace) -> dict[str, Any]:
    """The options of the task that were given. Raises ValueError for one of another task."""
    given = {name: value for name, value in given_options(options).items() if name not in _NOT_OFFERED}
    given |= {
        name: value for name, value in vars(options).items() if name in ("pooling", "normalize", "choices_column")
    }
    if strange := next((name for name in given if name not in _OF_TASK[options.task]), None):
        tasks = " and ".join(task for task, names in _OF_TASK.items() if strange in names)
        raise ValueError(f"--{strange.replace('_', '-')} is given, which is for --task {tasks}")
    if options.task in ("rank", "choices"):
        choices = given.get("choice", ["", ""])  # if they are in a column
        if ("choice" in given) == ("choices_column" in given) or len(choices) < 2:
            raise ValueError(f"--task {options.task} needs --choice, two or more, or --choices-column, and not both")
    if "" in given.get("choice", ()):
        raise ValueError("--choice is ''; a choice has at least one character")
    return given


def _runner(options: argparse.Namespace) -> Runner:
    """What works on the shards: this process, several, or a cluster."""
    from ..batch.processes import ModelSource, Processes, divided
    from ..batch.run import BATCH_SIZE, InProcess

    size = OPTIONS["batch_size"].checked(getattr(options, "batch_size", BATCH_SIZE))
    cpus, n = options.cpus_per_worker, options.workers
    source = ModelSource(options.model, options.dtype, options.threads, options.kv_dtype, options.kv_memory)
    if options.ray:
        from ..ray.cluster import Cluster

        if n or options.bind:
            raise ValueError("--workers and --bind are for this machine; on Ray --cpus-per-worker decides")
        return Cluster(source, options.ray, cpus, size)
    own, cpus_of_workers = divided(source, n, cpus, options.bind)
    if len(cpus_of_workers) > 1 or options.bind:
        return Processes(own, cpus_of_workers, size)
    return InProcess(load_model(options), size)
