"""Build hook: a wheel carries the files of weights/, a man page, and kernels compiled for the CPUs of one platform.

The kernels are an addition: on another CPU the same wheel compiles at first use. The platform is this machine's Linux;
`NBGPT_WHEEL=aarch64` or `x86_64` chooses Linux on that architecture, for which any Linux can compile. `pure` leaves the
kernels out, so that the wheel is for any platform; so is one that is built on another system. An editable install
finds weights/ beside the package and carries nothing.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TAG = "py3-none-manylinux_2_17_"
"""Of a wheel with kernels, before the architecture. They ask the C library for little more than syscall()."""


class WheelContents(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles with the Numba that nbgpt depends on."""

    PLUGIN_NAME = "custom"
    _folder: tempfile.TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """What must be in the build's environment."""
        numba = [name for name in self.metadata.core.dependencies if name.startswith("numba")]
        return [*numba, "argparse-manpage>=4.6"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Tell the builder what to add; what is made lies in a temporary folder."""
        if version == "editable":
            return
        build_data["force_include"]["weights"] = "nbgpt/data"
        sys.path.insert(0, self.root)
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        build_data["shared_data"][str(_write_man_page(folder))] = "share/man/man1/nbgpt.1"
        if architecture := _architecture():
            self._add_kernels(architecture, folder, build_data)

    def _add_kernels(self, architecture: str, folder: Path, build_data: dict[str, Any]) -> None:
        from nbgpt.backend.kernel_cache import build_shipped

        self.app.display_info(f"compiling kernels for common {architecture} CPUs (one minute or several)")
        for path in build_shipped(folder, architecture):
            self.app.display_info(f"compiled {path.name}")
            build_data["force_include"][str(path)] = f"nbgpt/objects/{path.name}"
        build_data["tag"], build_data["pure_python"] = f"{TAG}{architecture}", False

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Tidy up."""
        if self._folder is not None:
            self._folder.cleanup()


def _architecture() -> str | None:
    """Of the kernels that the wheel carries; None: it carries none."""
    from nbgpt.abi.targets import ARCHITECTURE, SHIPPED_FOR
    from nbgpt.backend.kernel_cache import on_shipped_platform

    chosen = os.environ.get("NBGPT_WHEEL")
    if chosen in (None, ""):
        return ARCHITECTURE if on_shipped_platform() else None
    if chosen not in ("pure", *SHIPPED_FOR):
        raise ValueError(f"NBGPT_WHEEL is {chosen!r}; choose one of pure, {', '.join(SHIPPED_FOR)}")
    if chosen != "pure" and sys.platform != "linux":
        raise ValueError(f"NBGPT_WHEEL is {chosen!r}, and kernels for Linux are compiled on Linux alone: choose pure")
    return None if chosen == "pure" else chosen


def _write_man_page(folder: Path) -> Path:
    """The man page of the whole command line, made from its parser."""
    from argparse_manpage.manpage import Manpage

    from nbgpt.cli.main import new_parser

    page = Manpage(new_parser("nbgpt"))
    page.description, page.manual = "GPT-2 on CPUs", "User Commands"
    path = folder / "nbgpt.1"
    path.write_text(str(page).replace(r"python \-m nbgpt", "nbgpt"), encoding="utf-8")
    return path
