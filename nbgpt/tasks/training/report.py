"""The report of a classifier: lines for a terminal, Markdown, or one HTML page with pictures."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...partial import whole_file
from . import evaluation as measures
from .charts import Axis, Points, line_chart, matrix_chart, unit_axis
from .results import Evaluation

MAX_MATRIX = 20
"""Labels at most of which a confusion matrix is shown."""
_MEASURES = ("accuracy", "macro F1", "log loss")
_ACCURACY = {
    False: "Accuracy is the share of the texts whose label is right.",
    True: "Accuracy is the share of the texts all of whose labels are right.",
}

_POOLED = {
    "last": "the last hidden state",
    "mean": "the mean of the hidden states",
    "both": "the last hidden state and the mean of all",
}

Table = list[Sequence[str]]
"""Rows of cells, the first of them the heads."""


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Write Markdown if the path ends in .md, else HTML; whole or not there."""
    text = as_markdown(evaluation) if path.suffix == ".md" else as_html(evaluation)
    with whole_file(path) as file:
        file.write(text.encode())


def about(evaluation: Evaluation) -> list[str]:
    """What was trained on what: two sentences."""
    head, data, fit = evaluation.head, evaluation.data, evaluation.fit
    sizes = (
        f"{len(data.training)} texts to train on, {len(data.validation)} to measure with, {len(data.labels)} labels."
    )
    chosen = f"{fit.n_folds}-fold cross-validation" if fit.n_folds else "no cross-validation"
    read = f"{_POOLED[head.pooling]}, {evaluation.model}, layer {head.layer} of {evaluation.n_layer}"
    return [sizes, f"Logistic regression (C = {fit.c:g}, {chosen}) on {len(head.mean)} numbers: {read}."]


def as_text(evaluation: Evaluation) -> str:
    """What the command writes to a terminal."""
    rows = _scores(evaluation)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*about(evaluation), "", *lines, ""]) + "\n"


def _scores(evaluation: Evaluation) -> Table:
    rows: Table = [("", *_MEASURES)]
    for name, one in evaluation.scores.items():
        rows.append((name, str(one.accuracy), str(one.macro_f1), str(one.log_loss)))
    return rows


def _labels(evaluation: Evaluation) -> Table:
    figures = measures.by_label(evaluation.probabilities, evaluation.data.validation.targets)
    rows: Table = [("label", "to train on", "to measure with", "precision", "recall", "F1")]
    counts = zip(
        evaluation.data.counts(evaluation.data.training),
        evaluation.data.counts(evaluation.data.validation),
        strict=True,
    )
    for label, (n, m), row in zip(evaluation.data.labels, counts, figures, strict=True):
        rows.append((label, str(n), str(m), *(f"{figure:.3f}" for figure in row)))
    return rows


def _layers(evaluation: Evaluation) -> Table:
    rows: Table = [("layer", "log loss, cross-validated", "accuracy")]
    return rows + [(str(one.layer), f"{one.loss:.3f}", f"{one.accuracy:.3f}") for one in evaluation.by_layer]


def _sizes(evaluation: Evaluation) -> Table:
    rows: Table = [("texts to train on", "accuracy", "TF-IDF's")]
    for one in evaluation.by_examples:
        rows.append((str(one.n), f"{one.accuracy:.3f}", "" if one.words is None else f"{one.words:.3f}"))
    return rows


def as_markdown(evaluation: Evaluation) -> str:
    """The report in Markdown: tables without pictures."""
    bins = measures.calibration(evaluation.probabilities, evaluation.data.validation.targets)
    parts = [
        "# A classifier",
        _plain(" ".join(about(evaluation))),
        *(["\n".join(f"- {_plain(note)}" for note in evaluation.notes)] if evaluation.notes else []),
        _markdown(_scores(evaluation)),
        "On texts that were not trained on, with 95 % bootstrap intervals. "
        f"{_ACCURACY[evaluation.data.multi_label]} Expected calibration error: {measures.calibration_error(bins):.3f}.",
        _markdown(_labels(evaluation)),
        _markdown(_layers(evaluation)),
        _markdown(_sizes(evaluation)),
    ]
    return "\n\n".join(parts) + "\n"


def _markdown(table: Table) -> str:
    lines = ["| " + " | ".join(map(_plain, row)) + " |" for row in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]])


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def as_html(evaluation: Evaluation) -> str:
    """The report as one page that refers to no other file."""
    parts = {
        "title": f"A classifier of {len(evaluation.data.labels)} labels",
        "style": _read("report.css"),
        "about": html.escape(" ".join(about(evaluation))),
        "notes": "<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in evaluation.notes) + "</ul>"
        if evaluation.notes
        else "",
        "scores": _html(_scores(evaluation)),
        "accuracy": _ACCURACY[evaluation.data.multi_label],
        "pictures": "\n".join(_figure(*one) for one in pictures(evaluation)),
        "labels": _html(_labels(evaluation)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _read("report.html"))


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _html(table: Table) -> str:
    def row(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    return "<table>" + row(table[0], "th") + "".join(row(cells, "td") for cells in table[1:]) + "</table>"


def _figure(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>"


def pictures(evaluation: Evaluation) -> list[tuple[str, str]]:
    """(SVG, caption) of each picture."""
    labels = evaluation.data.labels
    targets = evaluation.data.validation.targets
    found = []
    if not evaluation.data.multi_label and len(labels) <= MAX_MATRIX:
        counts = measures.confusion(evaluation.probabilities, targets)
        found.append(
            (matrix_chart("confusion matrix", labels, counts), "Confusion matrix: texts of each label, a row.")
        )
    found.append(_calibration(evaluation))
    if not evaluation.data.multi_label and len(labels) == 2:
        found.append(_roc(evaluation))
    if len(evaluation.by_examples) > 1:
        found.append(_by_examples(evaluation))
    if len(evaluation.by_layer) > 1:
        found.append(_by_layer(evaluation))
    return found


def _calibration(evaluation: Evaluation) -> tuple[str, str]:
    bins = measures.calibration(evaluation.probabilities, evaluation.data.validation.targets)
    points: Points = [(float(p), float(share)) for p, share, _ in bins]
    low = min(min(point) for point in points)
    picture = line_chart(
        "calibration", {"": points}, unit_axis("probability", low), unit_axis("share that is right", low), diagonal=True
    )
    what = "each label of each text" if evaluation.data.multi_label else "the likeliest label of each text"
    error = measures.calibration_error(bins)
    return picture, f"Calibration of {what}, in bins of equal size. Expected calibration error: {error:.3f}."


def _roc(evaluation: Evaluation) -> tuple[str, str]:
    positive = evaluation.data.labels[1]
    curve = measures.roc(evaluation.probabilities[:, 1], evaluation.data.validation.targets == 1)
    points: Points = [(float(x), float(y)) for x, y in curve]
    picture = line_chart(
        "ROC", {"": points}, unit_axis("false positive rate"), unit_axis("true positive rate"), diagonal=True
    )
    return picture, f"ROC curve of {positive!r:.40}. Area: {measures.area(curve):.3f}."


def _by_examples(evaluation: Evaluation) -> tuple[str, str]:
    sizes = evaluation.by_examples
    series: dict[str, Points] = {"this classifier": [(one.n, one.accuracy) for one in sizes]}
    if all(one.words is not None for one in sizes):
        series["TF-IDF"] = [(one.n, one.words or 0.0) for one in sizes]
    low = min(y for points in series.values() for _, y in points)
    numbers = [one.n for one in sizes]
    x = Axis("texts to train on", numbers[0], numbers[-1], numbers, is_log=True)
    return line_chart("accuracy by examples", series, x, unit_axis("accuracy", low)), "Accuracy by number of examples."


def _by_layer(evaluation: Evaluation) -> tuple[str, str]:
    layers = evaluation.by_layer
    points: Points = [(one.layer, one.accuracy) for one in layers]
    numbers = [one.layer for one in layers]
    x = Axis("layer", numbers[0], numbers[-1], numbers)
    picture = line_chart(
        "accuracy by layer", {"": points}, x, unit_axis("accuracy", float(np.min([y for _, y in points])))
    )
    read = f"Accuracy by layer, each with its own fit; this classifier reads layer {evaluation.head.layer}."
    return picture, read
