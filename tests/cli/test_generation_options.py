"""Options made from declarations: see test_generate.py for what each of them does."""

import argparse

from nbgpt.cli.generation_options import add_option, given_options
from nbgpt.text.options import OPTIONS


def test_only_what_is_given_and_another_default():
    parser = argparse.ArgumentParser()
    for name in ("temperature", "stop", "logit_bias", "bos"):
        add_option(parser, OPTIONS[name], "what this command takes" if name == "temperature" else "")
    assert given_options(parser.parse_args([])) == {}
    given = ["--temperature", "0.5", "--stop", "a", "--stop", "b", "--logit-bias", "3=-1", "--no-bos"]
    expected = {"temperature": 0.5, "stop": ["a", "b"], "logit_bias": {3: -1.0}, "bos": False}
    assert given_options(parser.parse_args(given)) == expected
    assert "default: what this command takes" in " ".join(parser.format_help().split())
