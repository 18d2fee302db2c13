"""What the subcommands' parsers share: options, and usage errors of one line."""

import argparse

import pytest

from nbgpt.cli.parser import Parser, add, add_bos, add_lines, add_model


@pytest.fixture
def parser():
    parser = Parser(prog="nbgpt")
    command = add(parser.add_subparsers(required=True), "read", "read a file", run=print)
    add_lines(command)
    return parser


def test_defaults(parser):
    options = vars(parser.parse_args(["read", "text.txt"]))
    assert options == {
        **{"file": "text.txt", "model": None, "dtype": None, "threads": None, "kv_dtype": "float32"},
        **{"kv_memory": None, "bos": None, "run": print},
    }


def test_options(parser):
    options = parser.parse_args(["read", "-", "-m", "gpt2", "--dtype", "int4", "-t", "2", "--kv-dtype", "float16"])
    assert (options.model, options.dtype, options.threads, options.kv_dtype) == ("gpt2", "int4", 2, "float16")


@pytest.mark.parametrize(("flags", "bos"), [([], None), (["--bos"], True), (["--no-bos"], False)])
def test_bos(flags, bos):
    parser = argparse.ArgumentParser()
    add_bos(parser, "help")
    assert parser.parse_args(flags).bos is bos


def test_the_description_is_a_sentence(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["read", "--help"])
    assert "\nRead a file.\n" in capsys.readouterr().out


def test_usage_errors_are_one_line(capsys):
    parser = Parser(prog="nbgpt")
    add_model(parser)
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--dtype", "in\nt2\x1b"])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("nbgpt: argument --dtype: invalid choice: ")
    assert error.endswith("; `nbgpt --help` explains\n")
    assert error.count("\n") == 1
