"""The examples of the documentation, run."""

import doctest
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import nbgpt.model
from nbgpt.text.options import OPTIONS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGE = DOCS / "api.md"
GUIDES = [DOCS / f"{name}.md" for name in ("start", "generating")]


def _pages_with(text):
    return [path for path in sorted(DOCS.glob("*.md")) if text in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", _pages_with("\n>>> "), ids=lambda path: path.name)
def test_a_page_does_what_it_says(path):
    failed, tried = doctest.testfile(str(path), module_relative=False, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert tried > 2
    assert failed == 0


def _commands(path):
    """Commands of a page that need nothing but this package, with the output that the page shows."""
    for shown in re.findall(r"^```console\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for command, output in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", shown, re.MULTILINE):
            if "python -m nbgpt" in command and "gpt2" not in command:
                yield pytest.param(command.partition("  #")[0], output, id=command[:60])


@pytest.mark.parametrize(("command", "output"), [one for path in GUIDES for one in _commands(path)])
def test_a_command_of_a_guide_does_what_it_says(command, output, tmp_path):
    here = f"{shlex.quote(sys.executable)} -m nbgpt"
    done = subprocess.run(
        command.replace("python -m nbgpt", here),
        shell=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not output or done.stdout.strip() == output.strip()


@pytest.mark.parametrize("module", [nbgpt.model], ids=lambda module: module.__name__)
def test_docstrings_do_what_they_say(module):
    failed, tried = doctest.testmod(module)
    assert tried > 0
    assert failed == 0


def test_the_page_has_the_options_as_they_are_declared():
    """If not: `python docs/options.py`."""
    text = PAGE.read_text(encoding="utf-8")
    rewritten = runpy.run_path(str(PAGE.with_name("options.py")))["rewritten"]
    assert rewritten(text) == text
    assert all(text.count(f"\n| `{name}` |") == 1 for name in OPTIONS)


def test_the_command_line_is_described_as_it_is():
    """If not: `python docs/commands.py`."""
    text = (DOCS / "command-line.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(DOCS / "commands.py"))["page"]() == text
    assert "`--top-p P`" in text
    assert "\n### eval perplexity\n" in text


def test_excerpts_are_the_source():
    """If not: `python docs/excerpts.py`."""
    rewritten = runpy.run_path(str(DOCS / "excerpts.py"))["rewritten"]
    pages = _pages_with("<!-- nbgpt/")
    assert [path.name for path in pages] == ["how-it-works.md"]
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert rewritten(text) == text
        assert "def layer_norm(out, x, gain, bias, n, epsilon)" in text


def test_the_site_has_every_page():
    listed = re.findall(r"^ *- .+: ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in DOCS.glob("*.md"))


@pytest.mark.parametrize("name", [path.name for path in sorted(ROOT.glob("*.md"))])
def test_links_of_the_pages_at_the_root_lead_somewhere(name):
    """MkDocs checks those of docs/."""
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!\w+:)([^)#]+)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_links_every_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in DOCS.glob("*.md")} - {"index.md", "reference.md"}
    assert sorted(name for name in pages if f"](docs/{name})" not in text) == []


def test_every_extra_of_users_is_listed():
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = settings.partition("[project.optional-dependencies]\n")[2].partition("\n\n[")[0]
    extras = {*re.findall(r"^(\w+) = \[", table, re.MULTILINE)} - {"test", "parity", "docs", "dev", "fuzz"}
    listed = re.findall(r"^\| `(\w+)` \|", (DOCS / "start.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(extras)


def test_the_version_stands_in_the_citation():
    assert f"version: {nbgpt.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
