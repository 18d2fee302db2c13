"""The report of a classifier: lines for a terminal, Markdown, or one HTML page with pictures."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...paths import whole_file
from . import evaluation as measures
from .charts import Axis, Points, line_chart, matrix_chart, unit_axis
from .classifier import Classifier

MAX_MATRIX = 20
"""Labels at most of which a confusion matrix is shown."""
_MEASURES = ("accuracy", "macro F1", "log loss")
_ACCURACY = {
    False: "Accuracy is the share of the texts whose label is right.",
    True: "Accuracy is the share of the texts all of whose labels are right.",
}

Table = list[Sequence[str]]
"""Rows of cells, the first of them the heads."""


def write_report(classifier: Classifier, path: Path) -> None:
    """Write Markdown if the path ends in .md, else HTML; whole or not there."""
    text = as_markdown(classifier) if path.suffix == ".md" else as_html(classifier)
    with whole_file(path) as file:
        file.write(text.encode())


def about(classifier: Classifier) -> str:
    """What was trained on what, in two sentences."""
    seen, head = classifier.evaluation, classifier.head
    weights, data = classifier.engine.weights, seen.data
    numbers = (
        f"{len(data.training)} texts to train on, {len(data.validation)} to measure with, {len(data.labels)} labels"
    )
    chosen = f"{seen.fit.n_folds}-fold cross-validation" if seen.fit.n_folds else "no cross-validation"
    return (
        f"{numbers}. Logistic regression (C = {seen.fit.c:g}, {chosen}) on {len(head.mean)} numbers: {head.pooling} of the "
        f"hidden states of {weights.name} {weights.dtype} after layer {head.layer} of {weights.config.n_layer}."
    )


def as_text(classifier: Classifier) -> str:
    """What the command writes to a terminal."""
    rows = _scores(classifier)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([about(classifier), "", *lines, ""]) + "\n"


def _scores(classifier: Classifier) -> Table:
    rows: Table = [("", *_MEASURES)]
    for name, one in classifier.evaluation.scores.items():
        rows.append((name, str(one.accuracy), str(one.macro_f1), str(one.log_loss)))
    return rows


def _labels(classifier: Classifier) -> Table:
    seen = classifier.evaluation
    figures = measures.by_label(seen.probabilities, seen.data.validation.targets)
    rows: Table = [("label", "to train on", "to measure with", "precision", "recall", "F1")]
    counts = zip(seen.data.counts(seen.data.training), seen.data.counts(seen.data.validation), strict=True)
    for label, (n, m), row in zip(classifier.labels, counts, figures, strict=True):
        rows.append((label, str(n), str(m), *(f"{figure:.3f}" for figure in row)))
    return rows


def _layers(classifier: Classifier) -> Table:
    rows: Table = [("layer", "log loss, cross-validated", "accuracy")]
    return rows + [(str(one.layer), f"{one.loss:.3f}", f"{one.accuracy:.3f}") for one in classifier.evaluation.by_layer]


def _sizes(classifier: Classifier) -> Table:
    rows: Table = [("texts to train on", "accuracy", "TF-IDF's")]
    for one in classifier.evaluation.by_examples:
        rows.append((str(one.n), f"{one.accuracy:.3f}", "" if one.words is None else f"{one.words:.3f}"))
    return rows


def as_markdown(classifier: Classifier) -> str:
    """The report in Markdown: tables without pictures."""
    seen = classifier.evaluation
    bins = measures.calibration(seen.probabilities, seen.data.validation.targets)
    parts = [
        "# A classifier",
        _plain(about(classifier)),
        *(["\n".join(f"- {_plain(note)}" for note in seen.notes)] if seen.notes else []),
        _markdown(_scores(classifier)),
        f"On texts that were not trained on, with 95 % bootstrap intervals. {_ACCURACY[seen.data.multi_label]} Expected "
        f"calibration error: {measures.calibration_error(bins):.3f}.",
        _markdown(_labels(classifier)),
        _markdown(_layers(classifier)),
        _markdown(_sizes(classifier)),
    ]
    return "\n\n".join(parts) + "\n"


def _markdown(table: Table) -> str:
    lines = ["| " + " | ".join(map(_plain, row)) + " |" for row in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]])


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def as_html(classifier: Classifier) -> str:
    """The report as one page that refers to no other file."""
    seen = classifier.evaluation
    parts = {
        "title": f"A classifier of {len(classifier.labels)} labels",
        "style": _read("report.css"),
        "about": html.escape(about(classifier)),
        "notes": "<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in seen.notes) + "</ul>"
        if seen.notes
        else "",
        "scores": _html(_scores(classifier)),
        "accuracy": _ACCURACY[seen.data.multi_label],
        "pictures": "\n".join(_figure(*one) for one in pictures(classifier)),
        "labels": _html(_labels(classifier)),
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


def pictures(classifier: Classifier) -> list[tuple[str, str]]:
    """(SVG, caption) of each picture."""
    seen, labels = classifier.evaluation, classifier.labels
    targets = seen.data.validation.targets
    found = []
    if not seen.data.multi_label and len(labels) <= MAX_MATRIX:
        counts = measures.confusion(seen.probabilities, targets)
        found.append(
            (matrix_chart("confusion matrix", labels, counts), "Confusion matrix: texts of each label, a row.")
        )
    found.append(_calibration(classifier))
    if not seen.data.multi_label and len(labels) == 2:
        found.append(_roc(classifier))
    if len(seen.by_examples) > 1:
        found.append(_by_examples(classifier))
    if len(seen.by_layer) > 1:
        found.append(_by_layer(classifier))
    return found


def _calibration(classifier: Classifier) -> tuple[str, str]:
    seen = classifier.evaluation
    bins = measures.calibration(seen.probabilities, seen.data.validation.targets)
    points: Points = [(float(p), float(share)) for p, share, _ in bins]
    low = min(min(point) for point in points)
    picture = line_chart(
        "calibration", {"": points}, unit_axis("probability", low), unit_axis("share that is right", low), diagonal=True
    )
    what = "each label of each text" if seen.data.multi_label else "the likeliest label of each text"
    error = measures.calibration_error(bins)
    return picture, f"Calibration of {what}, in bins of equal size. Expected calibration error: {error:.3f}."


def _roc(classifier: Classifier) -> tuple[str, str]:
    seen, positive = classifier.evaluation, classifier.labels[1]
    curve = measures.roc(seen.probabilities[:, 1], seen.data.validation.targets == 1)
    points: Points = [(float(x), float(y)) for x, y in curve]
    picture = line_chart(
        "ROC", {"": points}, unit_axis("false positive rate"), unit_axis("true positive rate"), diagonal=True
    )
    return picture, f"ROC curve of {positive!r:.40}. Area: {measures.area(curve):.3f}."


def _by_examples(classifier: Classifier) -> tuple[str, str]:
    sizes = classifier.evaluation.by_examples
    series: dict[str, Points] = {"this classifier": [(one.n, one.accuracy) for one in sizes]}
    if all(one.words is not None for one in sizes):
        series["TF-IDF"] = [(one.n, one.words or 0.0) for one in sizes]
    low = min(y for points in series.values() for _, y in points)
    numbers = [one.n for one in sizes]
    x = Axis("texts to train on", numbers[0], numbers[-1], numbers, is_log=True)
    return line_chart("accuracy by examples", series, x, unit_axis("accuracy", low)), "Accuracy by number of examples."


def _by_layer(classifier: Classifier) -> tuple[str, str]:
    layers = classifier.evaluation.by_layer
    points: Points = [(one.layer, one.accuracy) for one in layers]
    numbers = [one.layer for one in layers]
    x = Axis("layer", numbers[0], numbers[-1], numbers)
    picture = line_chart(
        "accuracy by layer", {"": points}, x, unit_axis("accuracy", float(np.min([y for _, y in points])))
    )
    read = f"Accuracy by layer, each with its own fit; this classifier reads layer {classifier.head.layer}."
    return picture, read
