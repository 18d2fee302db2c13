"""How this user calls nbgpt, and installs packages beside it: messages and help say it that way."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from ..text.options import OPTIONS

_MODULE = "python -m nbgpt"
"""How messages of the library name the command."""
_INSTALL = re.compile(r"""pip install (['"])(.+?)\1""")
_NAMED = re.compile(rf"^({'|'.join(OPTIONS)})(?= is | has |: )")
_SET = re.compile(rf"""\b({"|".join(OPTIONS)})=(["']?)([\w.]+)\2""")


def command() -> str:
    """The command that was called: `nbgpt` if it is installed as one, else the module."""
    return "nbgpt" if Path(sys.argv[0]).stem == "nbgpt" else _MODULE


def installation(packages: str) -> str:
    """The command that installs packages into the environment of this process."""
    prefix = Path(sys.prefix)
    parts = prefix.parts
    if "pipx" in parts or (prefix / "pipx_metadata.json").exists():  # $PIPX_HOME may be anywhere
        return f'pipx inject nbgpt "{packages}"'
    if ("uv" in parts and "tools" in parts) or (prefix / "uv-receipt.toml").exists():
        return f'uv tool install --with "{packages}" nbgpt'
    import shutil

    found = shutil.which("pip")
    if found and Path(found).parent == Path(sys.executable).parent:
        return f'pip install "{packages}"'
    python, here = sys.executable, str(Path.cwd())  # another environment is active, or none
    python = os.path.relpath(python, here) if python.startswith(here + os.sep) else python
    return f'{python} -m pip install "{packages}"'


def as_called(text: str) -> str:
    """A message or help with the commands in it as this user types them."""
    return _INSTALL.sub(lambda found: installation(found[2]), text.replace(_MODULE, command()))


def with_flags(message: str) -> str:
    """A message about options of `Model.generate` with their flags: "--top-k is -1", and not "top_k is -1"."""
    message = _NAMED.sub(lambda found: _flag(found[1]), message)
    return _SET.sub(lambda found: f"{_flag(found[1])} {found[3]}", message)


def _flag(name: str) -> str:
    return OPTIONS[name].flag or name
