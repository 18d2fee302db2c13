"""Build hook: a wheel carries the files of weights/, and kernels compiled for common CPUs.

The kernels are an addition: on a CPU or a system that they are not made for, the same wheel compiles at first use. So
it is tagged for any platform. An editable install finds weights/ beside the package and carries nothing.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WheelContents(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles with the Numba that nbgpt depends on."""

    PLUGIN_NAME = "custom"
    _folder: tempfile.TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """What must be in the build's environment."""
        return [name for name in self.metadata.core.dependencies if name.startswith("numba")]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Tell the builder what to add; kernels are compiled into a temporary folder."""
        if version == "editable":
            return
        build_data["force_include"]["weights"] = "nbgpt/data"
        sys.path.insert(0, self.root)
        from nbgpt.backend.kernel_cache import build_shipped, on_shipped_platform

        if on_shipped_platform():
            self._folder = tempfile.TemporaryDirectory()
            self.app.display_info("compiling kernels for common CPUs (about half a minute)")
            for path in build_shipped(Path(self._folder.name)):
                self.app.display_info(f"compiled {path.name}")
                build_data["force_include"][str(path)] = f"nbgpt/objects/{path.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Tidy up."""
        if self._folder is not None:
            self._folder.cleanup()
