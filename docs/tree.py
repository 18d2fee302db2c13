"""Rewrite the list of modules in docs/architecture.md from their docstrings: `python docs/tree.py`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = Path(__file__).parent / "architecture.md"
BEGIN, END = "<!-- made by `python docs/tree.py` -->\n", "<!-- end -->\n"


def summary(path: Path) -> str:
    """The first paragraph of a module's docstring as one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def layers() -> list[str]:
    """Packages and modules of nbgpt from the leaves up, in the order of the import contract."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^layers = (\[.*?^\])", settings, re.MULTILINE | re.DOTALL)
    assert listed, "pyproject.toml has no import contract"
    return [name.strip() for layer in reversed(ast.literal_eval(listed[1])) for name in layer.split("|")]


def tree() -> str:
    """A Markdown list: modules at the root, and each package with its modules."""
    lines = []
    for name in layers():
        folder = ROOT / "nbgpt" / name
        if not folder.is_dir():
            lines.append(f"- `{name}.py`: {summary(folder.with_suffix('.py'))}\n")
            continue
        lines.append(f"- **`{name}/`**: {summary(folder / '__init__.py')}\n")
        modules = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
        lines += [f"  - `{path.name}`: {summary(path)}\n" for path in modules]
        packages = sorted(folder.glob("*/__init__.py"))
        lines += [f"  - **`{path.parent.name}/`**: {summary(path)}\n" for path in packages]
    return "".join(lines)


def rewritten(page: str) -> str:
    """The page with a new list between the marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tree()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
