"""`.ci/oldest.txt` has the lower bounds of pyproject.toml, which `.ci/run` installs and tests."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BESIDE = {"llm", "lm-eval", "pytest-benchmark", "openai", "schemathesis", "atheris", "mkdocs-material"}
"""Extras that the fast tests do not need."""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_the_oldest_versions_are_those_that_are_allowed():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + [one for name in extras if name not in ("parity", "dev") for one in extras[name]]
    bounds = {match[1]: match[2] for one in wanted if (match := re.match(r"([\w-]+)>=([\d.]+)", one))}
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / ".ci" / "oldest.txt").read_text(), re.MULTILINE))
    assert {*pins} == {*bounds} - BESIDE
    for name, pin in pins.items():
        assert pin == bounds[name] or re.fullmatch(rf"{re.escape(bounds[name])}(\.0)+", pin), name
