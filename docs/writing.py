"""Type the session of docs/writing.md at a real terminal, and write what the screen shows: `python docs/writing.py`.

It draws the picture too, takes half a minute, and needs `pip install "nbgpt[test]"`.
"""

import sys
import tempfile
from html import escape
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from command_line import start  # noqa: E402
from pseudo_terminal import Terminal  # noqa: E402

PAGE, PICTURE = ROOT / "docs" / "writing.md", ROOT / "docs" / "images" / "writing.svg"
BEGIN, END = "<!-- made by `python docs/writing.py` -->\n", "<!-- end -->\n"
COLUMNS, LINES = 100, 80
START = ("repl", "--seed", "3", "--max-tokens", "40")
SESSION = ("Once upon a time", "/again", "/end sentence", "/why", "The old king", "/undo", "/set temperature 5000")
"""The lines of the page's session."""
PICTURED = ("It was a dark and stormy night", "/set color probability", "/again same", "/alternatives", "1")
"""Those of the picture's."""
COLORS = {"default": "#d0d0d0", "cyan": "#4ec9d8", "black": "#000000"}
NO_BREAK_SPACE = "&#160;"
PAPER, WIDTH, HEIGHT = "#1c1c1c", 8.43, 19
"""The colour of the screen, and the size of a character in pixels."""


def typed(lines: tuple[str, ...], home: str) -> Terminal:
    """A terminal at which these lines were typed."""
    with Terminal(*START, columns=COLUMNS, lines=LINES, NBGPT_HOME=home, COLORTERM="truecolor") as terminal:
        for line in lines:
            terminal.enter(line)
    return terminal


def rows(terminal: Terminal) -> int:
    """Lines of the screen up to the last prompt."""
    return terminal.text.count("\n")


def session(terminal: Terminal) -> str:
    """What the screen shows, as a block of the page."""
    shown = "\n".join(terminal.text.split("\n")[: rows(terminal)])
    return f"\n```console\n$ python -m nbgpt {' '.join(START)}\n{shown}\n```\n\n"


def picture(terminal: Terminal) -> str:
    """What the screen shows, in its colours, as SVG."""
    drawn = []
    for row in range(rows(terminal)):
        cells = [(column, terminal.screen.buffer[row][column]) for column in range(COLUMNS)]
        for (ink, paper), group in groupby(cells, lambda cell: (cell[1].fg, cell[1].bg)):
            found = list(group)
            drawn.append(run(row, found[0][0], "".join(cell.data for _, cell in found), ink, paper))
    width, height = WIDTH * (COLUMNS + 2), HEIGHT * (rows(terminal) + 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" font-size="14" '
        f"font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" >\n"
        f'<rect width="100%" height="100%" rx="6" fill="{PAPER}"/>\n' + "\n".join(filter(None, drawn)) + "\n</svg>\n"
    )


def run(row: int, column: int, text: str, ink: str, paper: str) -> str:
    """Characters of one colour, with their background."""
    x, y, width = WIDTH * (column + 1), HEIGHT * (row + 0.5), WIDTH * len(text)
    behind = f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{HEIGHT}" fill="{color(paper)}"/>'
    words = (
        f'<text x="{x:.1f}" y="{y + 14}" fill="{color(ink)}" textLength="{WIDTH * len(text.rstrip()):.1f}">'
        f"{escape(text.rstrip()).replace(' ', NO_BREAK_SPACE)}</text>"  # SVG drops other spaces
    )
    return behind * (paper != "default") + words * bool(text.strip())


def color(name: str) -> str:
    """A colour of pyte as SVG has it."""
    return COLORS.get(name, f"#{name}")


def main() -> None:
    """Rewrite both files."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    with tempfile.TemporaryDirectory() as home:
        start("warmup", env={"NBGPT_HOME": home}).communicate()
        PAGE.write_text(f"{before}{BEGIN}{session(typed(SESSION, home))}{END}{after}", encoding="utf-8")
        PICTURE.write_text(picture(typed(PICTURED, home)), encoding="utf-8")


if __name__ == "__main__":
    main()
