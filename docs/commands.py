"""Write docs/command-line.md from the parser: `python docs/commands.py`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from nbgpt.cli.main import new_parser

PAGE = Path(__file__).parent / "command-line.md"
_OPENING = """\
# The command line

<!-- made by `python docs/commands.py` -->

`nbgpt COMMAND`, or `python -m nbgpt COMMAND`, which is the same. `--help` after a command shows what stands here;
`--version` shows the version. `man nbgpt` has all of it, unless nbgpt was installed with `-e`.

Exit codes: 0 done; 1 a file, a package or the machine failed; 2 wrong usage; 3 done but for lines that are named; 130
interrupted; 141 the reader closed the pipe.
"""

_COUNTS = {"?": " (optional)", "*": " (any number)", "+": " (one or more)"}


def page() -> str:
    """The whole page."""
    return _OPENING + "".join(_sections(new_parser(), level=2))


def _sections(parser: argparse.ArgumentParser, level: int, name: str = "") -> Iterator[str]:
    """A section for each command of a parser, and for the commands of these."""
    for child, command in _commands(parser).items():
        full = f"{name} {child}".strip()
        yield f"\n{'#' * level} {full}\n\n{_text(command.description or '')}\n" + "".join(_groups(command))
        yield from _sections(command, level + 1, full)


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _groups(command: argparse.ArgumentParser) -> Iterator[str]:
    """A table of each group of arguments; positional arguments come first, as the parser has them."""
    for group in command._action_groups:
        rows = [_row(command, action) for action in group._group_actions if _is_shown(action)]
        if rows:
            is_named = group.title not in ("positional arguments", "options")
            about = f"\n**{group.title}**" + (f": {_text(group.description)}" if group.description else "") + "\n"
            yield (about if is_named else "") + "\n| argument | meaning |\n|---|---|\n" + "".join(rows)


def _is_shown(action: argparse.Action) -> bool:
    hidden = argparse._HelpAction, argparse._SubParsersAction
    return not isinstance(action, hidden) and action.help != argparse.SUPPRESS


def _row(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    meaning = command._get_formatter()._expand_help(action) if action.help else ""
    return f"| {_call(action)} | {_text(meaning)} |\n"


def _call(action: argparse.Action) -> str:
    """The flags of an option with its value, or the name of an argument."""
    name = action.dest.upper() if action.option_strings else action.dest
    value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else name)
    if not action.option_strings:
        return f"`{value}`{_COUNTS.get(str(action.nargs), '')}"
    values = value if isinstance(value, tuple) else () if action.nargs == 0 else (value,)
    return ", ".join(f"`{' '.join((flag, *values))}`" for flag in action.option_strings)


def _text(text: str) -> str:
    """Text as Markdown would have it in a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
