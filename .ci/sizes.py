"""Limits on the size of files and functions in the package, and on code that stands in it twice.

Exits with 1 and one line for each offender. A function's length counts its docstring, not its decorators; for code that
stands twice, blank lines, comments, docstrings and imports do not count.
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 50
MEDIAN_LINES = 7
REPEATED_LINES = 6  # as many equal lines, one after another, may not stand in the package twice

PACKAGE = Path(__file__).parent.parent / "nbgpt"
Lines = list[tuple[int, str]]  # (number, stripped text)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """(name, lines) of each function of a Python or JavaScript file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node.name, _length(node)
    elif path.suffix == ".js":  # from `function name(` to the next brace in the same column
        for match in re.finditer(r"^( *)(?:async )?function (\w+)\(.*?^\1\}", text, re.MULTILINE | re.DOTALL):
            yield match[2], match[0].count("\n") + 1


def _length(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def code_lines(path: Path) -> Lines:
    """The lines of a file that can stand twice."""
    lines = path.read_text(encoding="utf-8").splitlines()
    skipped = _not_code("\n".join(lines)) if path.suffix == ".py" else set()
    kept = [(number, line.strip()) for number, line in enumerate(lines, 1) if number not in skipped]
    return [(number, line) for number, line in kept if line and not line.startswith(("#", "//"))]


def _not_code(text: str) -> set[int]:
    """Numbers of the lines of docstrings and imports."""
    numbers: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text or isinstance(node, (ast.Import, ast.ImportFrom)):
            numbers.update(range(node.lineno, node.lineno + _length(node)))
    return numbers


def repetitions(files: dict[Path, Lines]) -> Iterator[str]:
    """Each run of equal lines: the first place where it stands, and where it stands again."""
    places: dict[tuple[str, ...], tuple[Path, int]] = {}
    for path, lines in files.items():
        was_repeated = False
        for start in range(len(lines) - REPEATED_LINES + 1):
            here = path, lines[start][0]
            run = tuple(text for _, text in lines[start : start + REPEATED_LINES])
            other, number = first = places.setdefault(run, here)
            if first != here and not was_repeated:
                yield f"{_name(other)}:{number} stands again at {_name(path)}:{here[1]}"
            was_repeated = first != here


def _name(path: Path) -> str:
    return str(path.relative_to(PACKAGE.parent))


def offenders() -> Iterator[str]:
    """A line for each file, function and repetition that is over its limit."""
    files = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".js", ".css"))
    found = [(name, n, path) for path in files for name, n in functions(path)]
    for path in files:
        n_lines = len(path.read_text(encoding="utf-8").splitlines())
        if n_lines > FILE_LINES:
            yield f"{_name(path)} has {n_lines} lines; at most {FILE_LINES}"
    for name, n, path in found:
        if n > FUNCTION_LINES:
            yield f"{_name(path)}: {name} has {n} lines; at most {FUNCTION_LINES}"
    median = statistics.median(n for _, n, _ in found)
    if median > MEDIAN_LINES:
        yield f"the median function has {median:g} lines; at most {MEDIAN_LINES}"
    yield from repetitions({path: code_lines(path) for path in files})


def main() -> int:
    """Print the offenders; 1 if there are any."""
    found = list(offenders())
    print("\n".join(found) or "sizes: all within their limits")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
