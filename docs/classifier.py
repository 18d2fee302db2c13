"""Run the commands of docs/classifier.md and write into it what they print: `python docs/classifier.py`.

It draws its picture too, takes half a minute, and needs `pip install "nbgpt[train]"`. The figures are the same on every
machine but for the last digits of sums that scikit-learn leaves to BLAS.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE, PICTURE = ROOT / "docs" / "classifier.md", ROOT / "docs" / "images" / "classifier.svg"
COMMAND = re.compile(r"```console\n\$ ([^\n]*)\n.*?```", re.DOTALL)


def written(command: str, folder: Path) -> str:
    """What a command of the page prints in a folder of its own: standard error, then standard output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NBGPT_HOME": str(folder / "home")}
    line = command.replace("examples/", f"{ROOT}/examples/").replace("python ", f"{sys.executable} ")
    done = subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    lines = [*done.stderr.splitlines(), *done.stdout.splitlines()]
    shown = "\n".join(line.rstrip() for line in lines if "compiling" not in line)
    return shown.replace(str(folder / "home"), "~/.cache/nbgpt") + "\n" if shown else ""


def picture(page: str) -> str:
    """The curve of accuracy by number of examples as a file of its own, from a report."""
    [svg] = re.findall(r'<svg [^>]*aria-label="accuracy by examples">.*?</svg>', page)
    rules = (ROOT / "nbgpt" / "tasks" / "training" / "report.css").read_text()
    root, *others = re.findall(r"^(?::root \{.*?^\}|svg[^\n]*)$", rules, re.MULTILINE | re.DOTALL)
    style = "\n".join([root.replace(":root", "svg"), *others]).replace(
        "display: block; max-width: 100%; height: auto; ", ""
    )
    opening, rest = svg.split(">", 1)
    background = '<rect width="100%" height="100%" style="fill: var(--paper)"/>'
    return f'{opening} xmlns="http://www.w3.org/2000/svg"><style>\n{style}\n</style>{background}{rest}\n'


def main() -> None:
    """Rewrite both files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def block(match: re.Match[str]) -> str:
            return f"```console\n$ {match[1]}\n{written(match[1], folder)}```"

        text = COMMAND.sub(block, PAGE.read_text(encoding="utf-8"))
        report = (folder / "home" / "models" / "authors-int8.html").read_text(encoding="utf-8")
    PAGE.write_text(text, encoding="utf-8")
    PICTURE.write_text(picture(report), encoding="utf-8")


if __name__ == "__main__":
    main()
