"""`bench`: its table and its JSON, and what it refuses before anything runs."""

import json

import pytest

from nbgpt.analysis import benchmark
from nbgpt.analysis.roofline import Roofline
from nbgpt.cli.main import main


@pytest.fixture
def hasty(monkeypatch):
    """No time is spent on measuring what the machine allows."""
    monkeypatch.setattr(benchmark, "measure_roofline", lambda model: Roofline(10.0, 20.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-d", 1000], "pp512 @ d1000 needs 1512 positions; this model's context is 200"),
        (["-p", 0, "-n", 101, "-d", "50,100"], "tg101 @ d100 needs 201 positions; this model's context is 200"),
        (["-p", 0, "-b", 0], "n-sequences is 0; it must be at least 1"),
        (["-p", 0, "-n", 0], "nothing to measure: n-prompt and n-gen are 0"),
        (["-p", 9, "-n", 9, "-r", 0], "repetitions is 0; it must be at least 1"),
        (["-p", 9, "-n", 9, "-t", "2,0"], "threads is 0; it must be from 1 to 512"),
        (["-p", 9, "-n", 9, "-t", "1,1000"], "threads is 1000; it must be from 1 to 512"),
        (["--random", "124M"], "a model and --random are given; choose one"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_runs(random_file, capsys, options, message):
    assert main(["bench", "-m", str(random_file), *map(str, options)]) == 2
    assert capsys.readouterr() == ("", f"nbgpt: {message}\n")


def test_a_size_that_is_not_official(capsys):
    assert main(["bench", "--random", "117M"]) == 2
    assert capsys.readouterr().err == "nbgpt: random is '117M'; choose one of 124M, 355M, 774M, 1558M\n"


@pytest.mark.usefixtures("hasty")
def test_the_command(random_file, capsys):
    options = ["bench", "-m", str(random_file), "-p", "7", "-n", "3", "-d", "0,9", "-b", "1,2", "-t", "1", "-r", "1"]
    assert main(options) == 0
    assert capsys.readouterr().out.count("\n") == 2 + 2 * (1 + 2)
    assert main([*options, "--json", "--kv-dtype", "float16"]) == 0
    first, second, *_ = json.loads(capsys.readouterr().out)
    assert (first["test"], second["test"]) == ("pp7", "pp7 @ d9")
    assert (first["dtype"], first["type_k"], first["type_v"]) == ("float32", "f16", "f16")
