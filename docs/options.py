"""Rewrite the tables of options in docs/api.md from their declarations: `python docs/options.py`."""

from numbers import Integral
from pathlib import Path

from nbgpt.sampling.declaration import GROUPS, Option
from nbgpt.text.options import OPTIONS

PAGE = Path(__file__).parent / "api.md"
BEGIN, END = "<!-- made by `python docs/options.py` -->\n", "<!-- end -->\n"


def tables() -> str:
    """A table of each group of options, in Markdown."""
    return "".join(
        f"\n**{group}**: {escape(about)}\n\n| option | type | default | allowed | meaning |\n|---|---|---|---|---|\n"
        + "".join(row(one) for one in OPTIONS.values() if one.group == group)
        for group, about in GROUPS.items()
    )


def row(one: Option) -> str:
    """The line of one option."""
    default = one.shown_default() or ("" if one.default is None else f"`{one.default!r}`")
    allowed = (
        " ".join(f"`{choice}`" for choice in one.choices) or "a whole number " * (one.kind is Integral) + one.allowed
    )
    cells = f"`{one.name}`", f"`{one.annotation}`", default, allowed, one.help
    return f"| {' | '.join(map(escape, cells))} |\n"


def escape(text: str) -> str:
    """Text as Markdown would have it in a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def rewritten(page: str) -> str:
    """The page with new tables between the marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{tables()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
