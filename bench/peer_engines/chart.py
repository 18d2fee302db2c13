"""The bar chart: tokens a second of every engine, a column of bars a test, at the most threads that were measured."""

import io
from typing import Any

from .contest import CONTESTS, TESTS
from .figures import Row, rows

COLORS = {
    "nbgpt": "#d1495b",
    "llama.cpp": "#30638e",
    "CTranslate2": "#00798c",
    "OpenVINO": "#edae49",
    "transformers": "#8d96a3",
}


def svg(data: dict[str, Any]) -> str:
    """The same bytes for the same figures."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    sections = data["sections"]
    threads = max((section["threads"] for section in sections), default=0)
    shown = {}
    for test in TESTS:
        of_test = [one for one in sections if one["test"] == test and one["threads"] == threads]
        of_test.sort(key=lambda one: list(CONTESTS).index(one["dtype"]))
        if of_test:
            shown[test] = [rows(section) for section in of_test]
    most = max((sum(map(len, groups)) + len(groups) for groups in shown.values()), default=1)
    with matplotlib.rc_context({"svg.hashsalt": "nbgpt", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = pyplot.subplots(
            1, max(len(shown), 1), figsize=(4.6 * max(len(shown), 1), 0.6 + 0.24 * most), squeeze=False
        )
        for axis, (test, groups) in zip(axes[0], shown.items(), strict=False):
            _bars(axis, test, groups)
            axis.set_ylim(most - 1, -1)  # bars of one height in every column, the first at the top
        figure.suptitle(f"GPT-2 124M, tokens a second, {threads} threads, {data['machine']['processor']}")
        figure.tight_layout()
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return file.getvalue()


def _bars(axis: Any, test: str, groups: list[list[Row]]) -> None:
    place, places, names = 0, [], []
    for group in groups:
        for row in sorted(group, key=lambda row: -row.speed):
            axis.barh(place, row.speed, color=COLORS[row.name.split()[0]])
            axis.annotate(f" {row.speed:.0f}", (row.speed, place), va="center")
            places.append(place)
            names.append(row.name)
            place += 1
        place += 1  # between groups
    axis.set_yticks(places, names)
    axis.set_xlim(0, 1.15 * max(row.speed for group in groups for row in group))
    axis.set_xticks([])
    axis.set_title(test)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
