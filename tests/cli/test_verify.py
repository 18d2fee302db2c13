"""`verify`: what it prints, and its exit codes."""

import re

import pytest

from nbgpt import verification
from nbgpt.verification import Check


def test_this_machine(run, monkeypatch):
    monkeypatch.setattr(verification, "checks", lambda: iter([Check("files", 3, ()), Check("texts", 21, ())]))
    code, out, err = run("verify")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("CPU      ")
    assert lines[1:3] == ["files    3 of 3 are the same", "texts    21 of 21 are the same"]
    assert re.fullmatch(r"this machine computes everybody's bits \(\d+\.\d s\)", lines[3])


@pytest.mark.parametrize(
    ("check", "line", "reason"),
    [
        (
            Check("texts", 7, ("a", "b", "c", "d", "e", "f")),
            "texts    1 of 7 are the same; not a, b, c, d, e",
            "other bits than all others",
        ),
        (Check("files", 3, ("vocab.bpe",)), "files    2 of 3 are the same; not vocab.bpe", "install nbgpt again"),
    ],
)
def test_another_machine(run, monkeypatch, check, line, reason):
    monkeypatch.setattr(verification, "checks", lambda: iter([check]))
    code, out, err = run("verify")
    assert code == 1
    assert out.splitlines()[1:] == [line]
    assert err.startswith("nbgpt: ")
    assert err.count("\n") == 1
    assert reason in err


def test_a_model(run, recital):
    code, out, err = run("verify", recital)
    assert (code, err) == (0, "")
    digest = out.strip()
    assert re.fullmatch("[0-9a-f]{16}", digest)
    assert run("verify", recital, "--expect", digest.upper(), "--threads", 1) == (0, out, "")
    code, again, err = run("verify", recital, "--expect", "0" * 16)
    assert (code, again) == (1, out)
    assert f"has digest {digest} on this machine, not {'0' * 16}" in err


@pytest.mark.parametrize("arguments", [["--expect", "1"], ["--dtype", "int8"], ["--threads", "2"]])
def test_options_without_a_model(fails, arguments):
    assert fails("verify", *arguments)[0] == 2


def test_no_such_model(fails):
    assert fails("verify", "nothing-of-this-name")[0] == 2
