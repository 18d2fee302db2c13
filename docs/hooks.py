"""Hooks of the documentation site: pages link to files of the repository as a code host shows them.

A link that leads out of docs/, as ../bench/results/peers.md, would lead nowhere on the site. So the files that are
linked become files of the site, and links to them are rewritten. MkDocs then checks them as it checks all others.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(?=[)#])")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_NESTED = re.compile(r"^  - ", re.MULTILINE)  # this Markdown wants four spaces before an item of an inner list


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside docs/ that pages link to, and those that these link to."""
    waiting = [file for file in files.documentation_pages() if file.generated_by is None]
    while waiting:
        page = waiting.pop()
        for path in map(_site_path, _links(page)):
            is_known = files.get_file_from_path(path) is not None or (ROOT / "docs" / path).exists()
            if not is_known and (ROOT / path).is_file():
                file = File(path, str(ROOT), config["site_dir"], config["use_directory_urls"])
                files.append(file)
                waiting += [file] if file.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as they lead on the site."""
    here = posixpath.dirname(page.file.src_uri)
    folder = posixpath.dirname(_repository_path(page.file))

    def on_site(found: re.Match[str]) -> str:
        return posixpath.relpath(_site_path(posixpath.join(folder, found[1])), here or ".")

    parts = _FENCE.split(markdown)
    parts[::2] = [_NESTED.sub("    - ", _LINK.sub(on_site, part)) for part in parts[::2]]
    return "".join(parts)


def _links(page: File) -> list[str]:
    """Where the links of a page lead: paths in the repository."""
    folder = posixpath.dirname(_repository_path(page))
    links = (_LINK.findall(part) for part in _FENCE.split(page.content_string)[::2])
    return [posixpath.join(folder, link) for found in links for link in found]


def _repository_path(file: File) -> str:
    return Path(str(file.abs_src_path)).relative_to(ROOT).as_posix()


def _site_path(path: str) -> str:
    """A path in the repository as the site has it: docs/ is its root."""
    return posixpath.normpath(path).removeprefix("docs/")
