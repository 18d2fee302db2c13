"""Rewrite the excerpts of source in the pages: `python docs/excerpts.py`.

An excerpt is a function or a class of nbgpt, in a fence below a comment that names it, nested ones by their path:
<!-- nbgpt/kernels/attention.py: make_attend_span.attend_span -->
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

DOCS = Path(__file__).parent
_EXCERPT = re.compile(r"(<!-- (nbgpt/\S+\.py): ([\w.]+) -->\n```python\n).*?(?<=\n)(```\n)", re.DOTALL)


def source_of(file: str, path: str) -> str:
    """A function or class with its decorators; path: its name, after those of what it is in."""
    text = (DOCS.parent / file).read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for name in path.split("."):
        node = next(one for one in ast.iter_child_nodes(node) if getattr(one, "name", None) == name)
    assert isinstance(node, (ast.FunctionDef, ast.ClassDef))
    first = min(one.lineno for one in (node, *node.decorator_list))
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno])) + "\n"


def rewritten(page: str) -> str:
    """The page with its excerpts as the source has them now."""
    return _EXCERPT.sub(lambda found: found[1] + source_of(found[2], found[3]) + found[4], page)


if __name__ == "__main__":
    for path in DOCS.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        path.write_text(rewritten(text), encoding="utf-8")
