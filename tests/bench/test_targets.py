"""The table of bench/targets.py and bench/emulated.py: a row for each target, a column for each CPU."""

import json
import os
import sys

import emulated
import pytest
import targets
from targets import HOST, OTHER, SAME, Results


def test_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(targets, "commit", lambda: "abc")
    Results(tmp_path).add("an x86", HOST, SAME, 12.4, "Python 3.11.7")
    Results(tmp_path).add("an x86", "haswell", OTHER, 30, "Python 3.11.7")
    results = Results(tmp_path)  # which reads what is there
    results.add("an ARM", "made there", SAME, 600, "Python 3.11.2")
    rows = [
        "| kernels for | an x86 | an ARM |",
        "|---|---|---|",
        f"| {HOST} | the same bits |  |",
        "| haswell | **other bits** |  |",
        "| made there |  | the same bits |",
    ]
    assert results.table().splitlines() == rows
    page = (tmp_path / "targets.md").read_text()
    assert results.table() in page
    assert "commit abc, Python 3.11.7; 42 s.\n" in page
    assert json.loads((tmp_path / "targets.json").read_text())["an ARM"]["made there"]["seconds"] == 600


@pytest.mark.parametrize(
    ("said", "code", "found"), [("4 of 4 are the same", 0, SAME), ("3 of 4 are the same", 1, OTHER)]
)
def test_what_verify_says(said, code, found):
    assert targets.verify([sys.executable, "-c", f"print({said!r}); raise SystemExit({code})"], {**os.environ}) == found


def test_a_verify_that_does_not_run():
    with pytest.raises(RuntimeError, match=r"(?s)ended with exit code 1: .*ZeroDivisionError"):
        targets.verify([sys.executable, "-c", "1 / 0"], {**os.environ})


def test_this_cpu_runs_no_kernels_for_another_architecture():
    others = {"neoverse-n1", "cortex-a72"} if targets.host_target().sse2 else {"haswell", "x86-64"}
    assert others <= {*targets._KNOWN}
    assert not others & {*targets.runnable()}
    assert targets.runnable()[0] == HOST


def test_the_emulated_cpus_are_those_of_the_wheel():
    from nbgpt.abi.targets import SHIPPED_FOR

    from_the_wheel = {run.partition(",")[0] for run in emulated.RUNS if run.endswith("from the wheel")}
    assert from_the_wheel == {target.cpu for target in SHIPPED_FOR["aarch64"]}
