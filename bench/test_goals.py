"""goals.py and read_limit.py stay alive: each section once, on a model so small that nothing takes long."""

import json
import shutil
import sys

import batch_rate
import goals
import pytest
from analysis import read_limit
from engine import joining, speculation
from tasks import features

from nbgpt.analysis import benchmark
from nbgpt.analysis.roofline import Roofline
from nbgpt.config import GPT2Config

COMPILES_FOR_LONG = {"compiling", "avx2"}


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    for size in benchmark.OFFICIAL:
        monkeypatch.setitem(benchmark.OFFICIAL, size, GPT2Config(n_layer=1, n_head=1, n_embd=64))
    for module in (benchmark, read_limit):
        monkeypatch.setattr(module, "measure_roofline", lambda engine: Roofline(10.0, 20.0))
    monkeypatch.setattr(speculation, "N_TOKENS", 8)
    monkeypatch.setattr(joining, "N_JOINS", 2)
    monkeypatch.setattr(features, "N_TEXTS", 8)
    monkeypatch.setattr(batch_rate, "N_ROWS", 8)
    for module in (goals, speculation, features):
        monkeypatch.setattr(module, "medians", lambda runs, rounds: {name: run() for name, run in runs.items()})


@pytest.mark.parametrize("section", sorted(goals.SECTIONS.keys() - COMPILES_FOR_LONG))
def test_section(section, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["goals.py", "--only", section, "--output", str(tmp_path)])
    goals.main()
    figures = json.loads((tmp_path / "goals.json").read_text())[section]["figures"]
    table = (tmp_path / "goals.md").read_text()
    assert figures
    for figure in figures:
        assert f"| {figure['what']} | {figure['goal']} | {figure['measured']} |" in table


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_reader_in_c(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["read_limit.py", "--threads", "1", "--rounds", "1"])
    read_limit.main()
    threads, c, ours, ratio = map(float, capsys.readouterr().out.splitlines()[-1].strip("| ").split(" | "))
    assert (threads, ours) == (1, 10)
    assert ratio == pytest.approx(ours / c, rel=0.05)
