"""`eval lambada`, `choices`, `hellaswag` and `cbt`, against the functions; and files of another form."""

import json

import pytest

import nbgpt
from nbgpt.analysis.cbt import CBT
from nbgpt.analysis.choices import CHOICES
from nbgpt.analysis.hellaswag import HELLASWAG
from nbgpt.analysis.lambada import LAMBADA

BLOCK = "".join(f"{n} the and\n" for n in range(1, 21)) + "21 the XXXXX .\tand\t\tthe|and|night\n\n"
ROW = {"activity_label": "a", "ctx_a": "the", "ctx_b": "and", "ctx": "the and", "endings": ["the", "night"], "label": 0}
CASES = {
    "lambada": ('{"text": "it was the"}\n{"text": "it was a night"}\n', LAMBADA, []),
    "choices": ('{"context": "it", "choices": ["the", "night"], "label": 0}\n' * 2, CHOICES, []),
    "hellaswag": (f"{json.dumps(ROW)}\n" * 2, HELLASWAG["lm-eval"], []),
    "hellaswag by llm.c": (f"{json.dumps(ROW)}\n" * 2, HELLASWAG["llm.c"], ["--protocol", "llm.c"]),
    "cbt": (BLOCK * 2, CBT, []),
}


@pytest.mark.parametrize("name", CASES)
def test_measures(run, chatter, tmp_path, name):
    text, measure, options = CASES[name]
    (tmp_path / "examples").write_text(text)
    command = ["eval", name.split()[0], tmp_path / "examples", "--model", chatter, *options]
    model = nbgpt.load(chatter)
    result = measure.run(model.engine, model.tokenizer, measure.read(text, ""))  # begins texts, as its file says
    code, out, err = run(*command)
    assert (code, err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    cut = f", {result.n_truncated} cut to the context of 200" if result.n_truncated else ""
    assert (lines["model"], lines["examples"]) == ("chatter float32", f"2{cut}")
    assert lines["protocol"] == measure.protocol
    for metric, estimate in result.estimates.items():
        assert lines[metric] == f"{estimate.value:.4f} +/- {estimate.standard_error:.4f}"
    found = json.loads(run(*command, "--json")[1])
    expected = {metric: vars(estimate) for metric, estimate in result.estimates.items()}
    counts = {"protocol": measure.protocol, "n": 2, "n_truncated": result.n_truncated}
    assert found == {"model": "chatter", "dtype": "float32", **counts, **expected}
    assert run(command[0], command[1], "-", *command[3:], stdin=text.encode())[1] == out


@pytest.mark.parametrize("name", CASES)
def test_bad_lines(fails, chatter, tmp_path, name):
    text, _, options = CASES[name]
    path = tmp_path / "examples"
    for bad, found in ((text + "{}", f"{path}, line "), ("", f"{path} has no "), ("\x00", f"{path}, line 1")):
        path.write_text(bad)
        code, line = fails("eval", name.split()[0], path, "--model", chatter, *options)
        assert code == 1
        assert line.startswith(found)
        assert "wanted " in line or "not valid JSON" in line
    code, line = fails("eval", name.split()[0], "-", "--model", chatter, *options, stdin=b"")
    assert line.startswith("standard input has no ")


def test_a_choice_that_is_too_long(fails, chatter):
    row = json.dumps({"context": "a", "choices": ["a", "night " * 300], "label": 0})
    code, line = fails("eval", "choices", "-", "--model", chatter, stdin=row.encode())
    assert code == 2
    assert line.endswith("tokens; this model's context is 200: shorten it")


def test_a_missing_file(fails, chatter):
    assert fails("eval", "lambada", "nothing.jsonl", "--model", chatter) == (
        1,
        "nothing.jsonl: No such file or directory",
    )


def test_an_example_has_no_error(run, chatter):
    line = run("eval", "lambada", "-", "--model", chatter, "--json", stdin=b'{"text": "it was"}')[1]
    assert json.loads(line)["acc"]["standard_error"] is None
