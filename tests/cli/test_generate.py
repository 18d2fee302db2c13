"""`generate` on the command line: every option arrives, JSON is whole, and colours say how likely tokens were."""

import contextlib
import io
import json
import math
import os
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from command_line import start
from folders import RECITED, TOKENIZER, ballot, reciter, write_random_model, write_text_model

import nbgpt
from nbgpt.backend.kernel_cache import load_kernels
from nbgpt.cli.invocation import as_called
from nbgpt.cli.main import main
from nbgpt.cli.terminal import shaded
from nbgpt.sampling.declaration import GROUPS
from nbgpt.text.options import OPTIONS

ESCAPE = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    load_kernels("float32")  # compiled beforehand, as that is said on standard error
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def recital(folder):
    """Writes RECITED and ends it."""
    return write_text_model(folder / "recital.safetensors", *reciter())


@pytest.fixture(scope="module")
def random_file(folder):
    return write_random_model(folder / "random.safetensors", tied_embeddings=False)


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs `generate` in this process -> exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        try:
            code = main(["generate", *map(str, arguments)])
        except SystemExit as end:  # argparse
            code = end.code
        return code, *capsys.readouterr()

    return run


ASKED = {  # what is given on the command line, and the same in Python
    "min_tokens": (["--min-tokens", 3], 3),
    "max_tokens": (["--max-tokens", 20], 20),
    "stop": (["--stop", "e", "--stop", " was", "--stop-id", 7], ["e", " was", 7]),
    "ignore_eos": (["--ignore-eos"], True),
    "max_time": (["--max-time", 1000], 1000.0),
    "overflow": (["--overflow", "keep_first"], "keep_first"),
    "bos": (["--bos"], True),
    "prefix": (["--prefix", " The"], " The"),
    "special": (["--special"], True),
    "temperature": (["--temperature", 1.5], 1.5),
    "greedy": (["--greedy"], True),
    "top_k": (["--top-k", 30], 30),
    "top_p": (["--top-p", 0.9], 0.9),
    "min_p": (["--min-p", 0.01], 0.01),
    "typical_p": (["--typical-p", 0.5], 0.5),
    "epsilon_cutoff": (["--epsilon-cutoff", 0.01], 0.01),
    "eta_cutoff": (["--eta-cutoff", 0.01], 0.01),
    "mirostat_tau": (["--mirostat-tau", 3], 3.0),
    "mirostat_eta": (["--mirostat-tau", 3, "--mirostat-eta", 0.5], 0.5),
    "seed": (["--seed", 4], 4),
    "repetition_penalty": (["--repetition-penalty", 1.3], 1.3),
    "presence_penalty": (["--presence-penalty", 5], 5.0),
    "frequency_penalty": (["--frequency-penalty", 5], 5.0),
    "no_repeat_ngram_size": (["--no-repeat-ngram-size", 1], 1),
    "dry_multiplier": (["--dry-multiplier", 5, "--dry-allowed-length", 1], 5.0),
    "dry_base": (["--dry-base", 2], 2.0),
    "dry_allowed_length": (["--dry-allowed-length", 1], 1),
    "dry_sequence_breakers": (["--dry-sequence-breaker", "e", "--dry-sequence-breaker", "t"], ["e", "t"]),
    "logit_bias": (["--logit-bias", "70=3.5", "--logit-bias", "71=-inf"], {70: 3.5, 71: -math.inf}),
    "bad_words": (["--bad-word", "e", "--bad-word", " the"], ["e", " the"]),
    "echo": (["--echo"], True),
    "batch_size": (["--batch-size", 2], 2),
}


@pytest.mark.parametrize("name", ASKED)
def test_every_option_arrives(run, monkeypatch, random_file, name):
    """As what `Model.stream` is asked for, and the text is the same."""
    asked = []
    stream = nbgpt.Model.stream
    monkeypatch.setattr(
        nbgpt.Model, "stream", lambda *given, **options: asked.append(options) or stream(*given, **options)
    )
    arguments, value = ASKED[name]
    fixed = ["--seed", 1, "-n", 25, "--temperature", 2, "--top-k", 0]  # whatever is given again counts instead
    code, out, _ = run("Once", "-m", random_file, "-q", *fixed, *arguments)
    assert code == 0
    assert asked[0][name] == value
    same = {option: given for option, given in asked[0].items() if option != "n"}
    monkeypatch.undo()
    assert out == nbgpt.load(random_file).generate("Once", **same).text.removesuffix("\n") + "\n"


def test_a_prompt_of_ids(run, fails, random_file):
    model = nbgpt.load(random_file)
    ids, fixed = model.encode("Once upon"), ["-m", random_file, "-q", "--seed", 1]
    expected = run("Once upon", *fixed)
    assert run("--ids", " ".join(map(str, ids)), *fixed) == expected
    assert run("--ids", ",".join(map(str, ids)), *fixed) == expected
    for wrong in ("Once", "", "1 -2", "1.5"):
        said = f"--ids is given and the prompt is {wrong!r}; it must be token ids, as 464 3290"
        assert fails("--ids", wrong, *fixed) == (2, said)


@pytest.mark.parametrize(
    ("size", "n_bytes"), [("1000000", 1000000), ("1M", 1 << 20), ("1.5GiB", 3 << 29), ("2kb", 2048)]
)
def test_the_kv_caches_memory(run, monkeypatch, random_file, size, n_bytes):
    given = []
    monkeypatch.setattr("nbgpt.model.load", lambda *arguments: given.append(arguments) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("a", "-m", random_file, "--kv-memory", size)
    assert given[0][-1] == n_bytes


def test_no_option_is_forgotten():
    by_other_names = {"sample", "logits_processors", "logprobs"}  # samples are counted; the last is for --json
    elsewhere = {"choice", "regex", "json_schema", "prompt_lookup", "draft_model"}  # below
    assert set(OPTIONS) - by_other_names - elsewhere == set(ASKED)


def test_forms_and_guesses(run):
    assert run("The answer is", "-q", "--seed", 1, "--choice", " yes", "--choice", " no")[1].strip() in ("yes", "no")
    assert re.fullmatch(r" [a-z]{3}\n", run("It was", "-q", "--seed", 1, "--regex", " [a-z]{3}")[1])
    assert json.loads(run("", "-q", "--seed", 1, "--json-schema", '{"enum": [17, 18]}')[1]) in (17, 18)
    plain = run("a b c a b c a b", "-q", "--seed", 2, "-n", 20)[1]
    code, out, err = run("a b c a b c a b", "--seed", 2, "-n", 20, "--prompt-lookup")
    assert (code, out) == (0, plain)
    assert "guesses right" in err
    assert run("a b c a b c a b", "-q", "--seed", 2, "-n", 20, "--draft-model", "story-34m")[1] == plain


def test_json(run, random_file):
    code, out, err = run("Once", "-m", random_file, "--json", "--num-samples", 3, "--seed", 5, "-n", 9, "--logprobs", 2)
    lines = out.splitlines()
    assert (code, len(lines), len(err.splitlines())) == (0, 3, 3)
    model = nbgpt.load(random_file)
    for line, completion in zip(lines, model.generate("Once", n=3, seed=5, max_tokens=9, logprobs=2), strict=True):
        found = json.loads(line)
        assert list(found) == ["text", "tokens", "logprobs", "finish_reason", "usage", "seed"]
        assert (found["text"], found["tokens"]) == (completion.text, completion.tokens)
        assert (found["finish_reason"], found["seed"]) == (completion.finish_reason, 5)
        usage = completion.usage
        assert found["usage"] == {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        }
        for one, expected in zip(found["logprobs"], completion.logprobs, strict=True):
            assert (one["token"], one["text"], bytes(one["bytes"])) == (expected.token, expected.text, expected.bytes)
            assert one["logprob"] == expected.logprob
            assert {likely["token"]: likely["logprob"] for likely in one["top"]} == expected.top
            assert [likely["text"] for likely in one["top"]] == [TOKENIZER.decode([i]) for i in expected.top]


def test_json_without_logprobs(run, recital):
    code, out, err = run("-m", recital, "--json", "-q", "-n", 100)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["text"], found["logprobs"], found["finish_reason"]) == (RECITED, None, "stop")


@pytest.mark.parametrize("options", [[], ["--echo"], ["--stop", "dark"], ["--num-samples", 2]])
def test_color_shades_the_same_text(run, random_file, options):
    fixed = ["Naïve 😀", "-m", random_file, "-q", "--seed", 3, "-n", 40, *options]
    _, plain, _ = run(*fixed)
    code, colored, _ = run(*fixed, "--color")
    assert code == 0
    assert ESCAPE.sub("", colored) == plain
    assert len(ESCAPE.findall(colored)) > 20


def test_color_says_how_likely(run, folder):
    likely = [TOKENIZER.encode(token)[0] for token in (" the", " and")]
    logits = np.full(TOKENIZER.n_vocab, -50, np.float32)
    logits[likely] = np.log([0.95, 0.05])
    path = write_text_model(folder / "ballot.safetensors", *ballot(logits, n_layer=1))
    _, out, _ = run("Once", "-m", path, "-q", "--seed", 1, "-n", 100, "--color")
    colors = dict.fromkeys(re.findall(r"(\x1b\[[\d;]+m)( \w+)", out))
    assert {text: color for color, text in colors} == {
        text: ESCAPE.match(shaded(text, p)).group() for text, p in ((" the", 0.95), (" and", 0.05))
    }


def test_shades(monkeypatch):
    monkeypatch.setenv("COLORTERM", "truecolor")
    assert shaded("a\nb", 1) == "\x1b[30;48;2;155;255;155ma\x1b[0m\n\x1b[30;48;2;155;255;155mb\x1b[0m"
    assert [ESCAPE.match(shaded("a", p)).group()[10:-1] for p in (0, 0.25)] == ["255;155;155", "255;255;155"]
    monkeypatch.delenv("COLORTERM")
    assert [shaded("a", p)[10:13] for p in (0, 0.04, 0.25, 0.5, 1)] == ["217", "223", "229", "193", "157"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--logit-bias", "262"], "argument --logit-bias: '262' is not ID=BIAS, as 262=-5; `python -m nbgpt generate"),
        (["--logit-bias", "a=5"], "argument --logit-bias: 'a=5' is not ID=BIAS"),
        (["--logit-bias", "99999=5"], "--logit-bias has token 99999; it must be a whole number from 0 to"),
        (["--stop", ""], "--stop has ''; it must be a text of at least one character"),
        (["--stop-id", -1], "token in stop is -1; it must be a whole number from 0 to"),
        (["--bad-word", ""], "--bad-word has an empty one; each must have at least one token"),
        (["--min-p", 2], "--min-p is 2.0; it must be from 0 (off) to 1"),
        (["--min-tokens", 300], "--min-tokens is 300; it must be a whole number up to max_tokens, "),
        (["--logprobs", 2], "--logprobs is given without --json, which alone shows them"),
        (["--json", "--color"], "--json and --color are given; choose one"),
        (["--json", "--logprobs", -1], "--logprobs is -1; it must be a whole number from 0 to"),
        (["--batch-size", 0], "--batch-size is 0; it must be a whole number from 1 on"),
        (["--max-time", 0], "--max-time is 0.0; it must be above 0 seconds"),
    ],
)
def test_values_out_of_range(run, recital, options, message):
    code, out, err = run("Once", "-m", recital, *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"nbgpt: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("samples", [1, 2])
def test_an_error_before_any_text_is_all_that_is_written(run, recital, samples):
    everything = [argument for i in range(TOKENIZER.n_vocab) for argument in ("--logit-bias", f"{i}=-inf")]
    code, out, err = run("Once", "-m", recital, "--num-samples", samples, *everything)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "every token is banned" in err


def test_help_is_what_is_declared(run):
    """Each option in its group, with its help and its default."""
    _, out, _ = run("--help")
    groups = dict(re.findall(r"^(\w+):\n(.*?)(?=^\w+:\n|\Z)", out, re.MULTILINE | re.DOTALL))
    said = {name: " ".join(text.split()) for name, text in groups.items()}
    for name, about in GROUPS.items():
        assert said[name].startswith(as_called(about))
    for one in OPTIONS.values():
        if one.flag:
            assert one.flag in said[one.group]
            assert one.help in said[one.group]
            assert f"default: {one.shown_default()}" in said[one.group] or not one.shown_default()
    shown = {flag for flag in re.findall(r"--[a-z-]+", out) if flag in {one.flag for one in OPTIONS.values()}}
    assert shown == {one.flag for one in OPTIONS.values()} - {None}


def test_a_new_option_is_a_flag(monkeypatch, run, random_file):
    """Declared and nowhere else."""
    declared = replace(OPTIONS["min_p"], name="top_a", flag="--top-a", help="keep the likely")
    monkeypatch.setitem(OPTIONS, "top_a", declared)
    asked = []
    monkeypatch.setattr(nbgpt.Model, "stream", lambda *given, **options: asked.append(options) or [])
    assert "--top-a P keep the likely; default: 0" in " ".join(run("--help")[1].split())
    assert run("Once", "-m", random_file, "--top-a", 0.5)[0] == 0
    assert asked[0]["top_a"] == 0.5
    assert run("--top-a", "x")[2].startswith("nbgpt: argument --top-a: invalid float value: 'x'")


def test_long_texts(run, recital):
    for overflow in ("truncate_left", "keep_first"):
        code, out, _ = run("-m", recital, "-n", 500, "--ignore-eos", "--overflow", overflow)
        assert code == 0
        assert len(TOKENIZER.encode(out)) >= 300


def test_a_terminal_shows_the_prompt_dimmed(recital):
    """The prompt is of several words without quotes."""
    controller, terminal = os.openpty()
    process = start("generate", "-q", "-m", recital, "It", "was", "-n", 1, stdout=terminal)
    os.close(terminal)
    said = b""
    with contextlib.suppress(OSError):  # Linux's answer when the other end is closed
        while part := os.read(controller, 1024):
            said += part
    assert (process.wait(60), said.startswith(b"\x1b[2mIt was\x1b[0m")) == (0, True)
    os.close(controller)


def test_echo(run, recital):
    plain = run("It was", "-q", "-m", recital, "-n", 3)[1]
    assert run("It was", "-q", "-m", recital, "-n", 3, "--echo")[1] == "It was" + plain
    assert run("It", "was", "-q", "-m", recital, "-n", 3, "--no-echo")[1] == plain


def test_an_empty_prompt_has_a_text(run, folder):
    """Though the model would end it at once, and a stop string is still found in its first token."""
    likely = np.full(TOKENIZER.n_vocab, -50, np.float32)
    likely[[TOKENIZER.encode("a")[0], *TOKENIZER.eos_ids]] = 0, 9
    path = write_text_model(folder / "ends.safetensors", *ballot(likely, n_layer=1))
    assert run("-q", "-m", path, "-n", 5)[1] == "a\n"
    assert run("-q", "-m", path, "-n", 5, "--stop", "a")[1] == "\n"
    assert run("-q", "-m", path, "-n", 5, "--regex", "b?")[1] in ("\n", "b\n")
