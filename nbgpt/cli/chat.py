"""`chat`: a conversation at a terminal, or with the lines of standard input."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..text.options import OPTIONS
from .generation_options import add_option, given_options
from .parser import add, add_model, load_model
from .terminal import is_terminal, line_batches, note, write

if TYPE_CHECKING:
    from ..tasks.chat import Chat
    from .parser import Commands

_OPTIONS = {"max_tokens": "100"} | dict.fromkeys(
    ("temperature", "top_k", "top_p", "repetition_penalty", "seed", "stop", "bos"), ""
)
"""Options of `generate`, with the default where it is another one."""
_COMMANDS = "/new begins another conversation, /undo takes the last exchange back, /quit or Ctrl-D leaves"

_ABOUT = (
    "GPT-2 was not trained on conversations, and the small models answer badly. The template `plain` writes "
    "lines that begin with `user:` and `assistant:`; for a fine-tune that has a format of its own, give a file. When "
    "the transcript and --max-tokens new tokens do not fit the context, the oldest exchanges are left out. At a "
    f"terminal, {_COMMANDS}."
)


def define_chat(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "chat", "talk with a model; it continues a transcript of the conversation", _chat)
    command.description = f"{command.description} {_ABOUT}"
    add_model(command)
    command.add_argument(
        "--template", default="plain", metavar="FILE", help="a Jinja template, or plain; default: %(default)s"
    )
    command.add_argument("--system", default="", metavar="TEXT", help="the system message, before the conversation")
    command.add_argument("--json", action="store_true", help="a line of JSON for each answer")
    for name, default in _OPTIONS.items():
        add_option(command, OPTIONS[name], default)


def _chat(options: argparse.Namespace) -> None:
    from ..engine.request import random_seed
    from ..tasks.chat import Chat
    from ..tasks.chat_template import load_template

    template = load_template(options.template)
    model = load_model(options)
    asked = {"seed": random_seed(), **given_options(options)}
    model.stream([0], **asked)  # checks the options before anything is typed
    chat = Chat(model, template, options.system, **asked)
    is_typed = is_terminal(sys.stdin)
    if is_typed:
        note(f"{model.name} {model.dtype}; {_COMMANDS}")
    for line in _lines(is_typed):
        if is_typed and line.strip() in ("/quit", "/exit"):
            return
        if is_typed and line.strip() in ("/new", "/undo"):
            del chat.exchanges[0 if line.strip() == "/new" else -1 :]
        else:
            _take(chat, line, asked["seed"], options.json, is_typed)


def _lines(is_typed: bool) -> Iterator[str]:
    if not is_typed:
        return (line for lines in line_batches("-") for line in lines)
    from .writer.candidates import Candidate
    from .writer.front import open_front

    def completions(line: str) -> tuple[str, list[Candidate]]:
        return line, [Candidate(name) for name in ("/new", "/undo", "/quit") if line and name.startswith(line)]

    return open_front(completions, keeps_typed=True).lines


def _take(chat: Chat, message: str, seed: Any, is_json: bool, is_typed: bool) -> None:
    """Answer a message. At a terminal, neither Ctrl-C nor a message that is too long ends the conversation."""
    from .writer.display import Display, default_color
    from .writer.manuscript import Span

    answer, display = chat.stream(message), Display(is_terminal(sys.stdout) and not is_json)
    try:
        with contextlib.closing(answer):
            for piece in answer:
                display.add(Span("" if is_json else piece, is_written=True), default_color())
    except (KeyboardInterrupt, ValueError) as error:
        if not is_typed:
            raise
        if isinstance(error, ValueError):
            return note(str(error))
    if is_json:
        fields = {"role": "assistant", "content": chat.exchanges[-1][1], "seed": seed, "n_dropped": chat.n_dropped}
        return write(json.dumps(fields, ensure_ascii=False) + "\n")
    display.end()
    if chat.n_dropped:
        note(f"the oldest exchanges, {chat.n_dropped}, were left out: they no longer fit the context")
    return None
