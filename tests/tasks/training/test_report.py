"""Reports: every figure of the evaluation, on a page that needs nothing else."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from nbgpt.tasks.training.report import as_html, as_markdown, as_text, pictures


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "circle", "polyline", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag in ("circle",):
            return
        assert self.open.pop() == tag


@pytest.mark.parametrize(("which", "n"), [("classifier", 4), ("binary", 5), ("tagger", 3)])
def test_the_page(which, n, request):
    evaluation = request.getfixturevalue(which).evaluation
    text = as_html(evaluation)
    page = Page(text)
    assert page.open == []
    assert [tag for tag, _ in page.tags].count("svg") == n == len(pictures(evaluation))
    assert not [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert "{{" not in text
    for one in evaluation.scores.values():
        for interval in (one.accuracy, one.macro_f1, one.log_loss):
            assert f"<td>{interval}</td>" in text


@pytest.mark.parametrize("which", ["classifier", "binary", "tagger"])
def test_the_same_figures_in_markdown_and_at_a_terminal(which, request):
    evaluation = request.getfixturevalue(which).evaluation
    markdown, lines = as_markdown(evaluation), as_text(evaluation)
    for name, one in evaluation.scores.items():
        assert f"| {name} | {one.accuracy} | {one.macro_f1} | {one.log_loss} |" in markdown
        assert re.search(
            rf"^{name} +{re.escape(str(one.accuracy))} +{re.escape(str(one.macro_f1))}", lines, re.MULTILINE
        )
    for one in evaluation.by_layer:
        assert f"| {one.layer} | {one.loss:.3f} | {one.accuracy:.3f} |" in markdown
    for label, n in zip(evaluation.data.labels, evaluation.data.counts(evaluation.data.training), strict=True):
        assert f"| {label} | {n} |" in markdown


def test_labels_and_notes_are_text(classifier):
    """Whatever they contain."""
    evil = ("<b>&", "a|b", "`x`\n# y")
    evaluation = classifier.evaluation
    evaluation = replace(evaluation, data=replace(evaluation.data, labels=evil), notes=("<script>alert(1)</script>",))
    page = as_html(evaluation)
    Page(page)
    assert "<script" not in page
    assert "<b>" not in page
    rows = [line for line in as_markdown(evaluation).splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) in (4, 5, 7) for line in rows)
    assert not [line for line in as_markdown(evaluation).splitlines() if line.startswith("# y")]


def test_files(binary, tmp_path):
    binary.report(tmp_path / "r.html")
    binary.report(tmp_path / "r.md")
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "r.md").read_text() == as_markdown(binary.evaluation)
