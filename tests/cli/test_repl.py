"""`repl`: options that the model refuses, refused before anything is typed. See test_interactive.py for the rest."""

import pytest

from nbgpt.cli.main import main


@pytest.mark.parametrize(
    ("options", "message"), [(["--max-tokens", "0"], "--max-tokens is 0"), (["--seed", "-1"], "--seed is -1")]
)
def test_what_it_is_started_with_is_tried(capsys, options, message):
    assert main(["repl", *options]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"nbgpt: {message}; it must be ")
    assert (said.out, said.err.count("\n")) == ("", 1)
