"""`download`: official weights from the Hugging Face hub, converted."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .parser import DTYPES, add
from .terminal import printable, write

if TYPE_CHECKING:
    from .parser import Commands


def define_download(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "download", "fetch official weights from the hub and convert them", _download)
    command.add_argument("name", help="gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or OWNER/REPO")
    command.add_argument("--dtype", choices=DTYPES, default="int8", help="default: %(default)s")


def _download(options: argparse.Namespace) -> None:
    from ..conversion.hub import fetch
    from ..conversion.registry import convert_with_progress, file_name, models_folder
    from ..formats import open_checkpoint

    checkpoint = open_checkpoint(fetch(options.name))
    output = models_folder() / file_name(options.name, options.dtype)
    convert_with_progress(checkpoint, options.dtype, output, name=options.name)
    write(f"{printable(str(output))}\n")
