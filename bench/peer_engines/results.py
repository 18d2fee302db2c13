"""What was measured, kept in three files that are whole at any time: JSON with every sample, Markdown, and a chart.

A section is written as soon as it ends. Sections of an earlier run stay where this one has none of its own, if that run
had the same machine and the same versions. The file of another machine is kept under another name, and reported beside.
"""

import hashlib
import json
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import chart, models, report
from .machine import machine

PACKAGES = {
    "llama_cpp": "llama-cpp-python",
    "ctranslate2": "ctranslate2",
    "openvino": "openvino",
    "transformers": "transformers",
}
ALONGSIDE = ("torch", "nncf", "numpy", "numba", "llvmlite", "tokenizers", "gguf")


def engine_versions() -> dict[str, str]:
    """Of nbgpt, by the digest of its sources, and of every peer that is installed."""
    return {"nbgpt": _digest_of_nbgpt(), **_versions(PACKAGES)}


def _versions(packages: dict[str, str]) -> dict[str, str]:
    found = {}
    for name, package in packages.items():
        with suppress(PackageNotFoundError):
            found[name] = version(package)
    return found


def _digest_of_nbgpt() -> str:
    digest = hashlib.sha256()
    for path in sorted((models.REPOSITORY / "nbgpt").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _slug(data: dict[str, Any]) -> str:
    """The processor's name as part of a file's name."""
    return re.sub(r"\W+", "-", data["machine"]["processor"]).strip("-")


class Results:
    """Sections and what they were measured with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        versions = {**engine_versions(), **_versions({package: package for package in ALONGSIDE})}
        self.data: dict[str, Any] = {"machine": machine(), "versions": versions, "entrants": {}, "sections": []}
        file = folder / "peers.json"
        if file.exists():
            earlier = json.loads(file.read_text())
            if all(earlier.get(key) == self.data[key] for key in ("machine", "versions")):
                self.data = earlier
            elif earlier["machine"]["processor"] != self.data["machine"]["processor"]:
                file.replace(folder / f"peers-{_slug(earlier)}.json")

    def add_entrant(self, name: str, found: dict[str, Any]) -> None:
        """Keep an entrant's settings and distance from the expected logits."""
        self.data["entrants"][name] = found
        self.data.get("failures", {}).pop(name, None)  # of an earlier run

    def add_failure(self, name: str, reason: str) -> bool:
        """Keep why an entrant has no figures, or not all of them; False if that was known."""
        failures = self.data.setdefault("failures", {})
        is_new = failures.get(name) != reason
        failures[name] = reason
        return is_new

    def add_section(self, **section: Any) -> None:
        """Keep a section (test, dtype, threads, tokens, busy, seconds) in place of the earlier one; write the files."""
        key = ("test", "dtype", "threads")
        others = [one for one in self.data["sections"] if any(one[name] != section[name] for name in key)]
        self.data["sections"] = [*others, section]
        self.write()

    def add_cold_start(self, **cold: Any) -> None:
        self.data["cold_start"] = cold
        self.write()

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._replace("peers.json", json.dumps(self.data, indent=1) + "\n")
        own = f"peers-{_slug(self.data)}.json"  # of an earlier run, before another machine's
        others = [json.loads(file.read_text()) for file in sorted(self.folder.glob("peers-*.json")) if file.name != own]
        self._replace("peers.md", report.markdown(self.data, others))
        self._replace("peers.svg", chart.svg(self.data))

    def _replace(self, name: str, text: str) -> None:
        partial = self.folder / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.folder / name)
