"""Few-shot prompts: a template is filled from each row of a table, behind rows that show what is wanted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .rows import Row
from .templates import TextTemplate


@dataclass(frozen=True)
class FewShot:
    """Makes prompts.

    In the template, the columns of a row are variables; `row` is the whole row, and `examples` the list of the rows
    that are shown before it:

        {% for one in examples %}{{ one.text }} => {{ one.label }}
        {% endfor %}{{ text }} =>
    """

    template: TextTemplate
    examples: Sequence[Row] = ()

    def prompt(self, row: Row) -> str:
        """The prompt for a row. Raises ValueError if the template names a column that there is not."""
        return self.template.render({**row, "row": row, "examples": list(self.examples)})


def drawn(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    """n rows drawn without repetition, the same ones for the same seed. Raises ValueError if there are fewer."""
    if not 0 <= n <= len(rows):
        raise ValueError(f"shots is {n}; it must be from 0 to {len(rows)}, the number of examples")
    return random.Random(seed).sample(list(rows), n)
