"""The command line: text alone on standard output, one clear line for whatever goes wrong, and its exit code."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import FIGURES, start
from folders import RECITED, TOKENIZER, reciter, write_text_model

import nbgpt
import nbgpt.cli.main
from nbgpt.cli.main import main
from nbgpt.conversion import registry
from nbgpt.engine.request import Request
from nbgpt.text.stream import Writer

SOURCES = [path.read_text(encoding="utf-8") for path in Path(nbgpt.cli.main.__file__).parent.glob("*.py")]
DEFINED = sorted(
    name for source in SOURCES for name in re.findall(r"^def define_(\w+)\(commands:", source, re.MULTILINE)
)
COMMANDS = [name.replace("_", "-") for name in DEFINED]
"""Whatever module of the command line defines them."""


# generate


def test_standard_output_is_the_text_alone(run, recital):
    code, out, err = run("generate", "--model", recital, "-n", 100, "--threads", 1)
    assert (code, out) == (0, RECITED + "\n")
    figures = FIGURES.fullmatch(err)
    assert figures["new"] == str(len(TOKENIZER.encode(RECITED)) + 1)
    assert figures.group("prompt", "model", "dtype", "threads") == ("1", "recital", "float32", "1")


def test_quiet(run, recital):
    assert run("generate", "-q", "--model", recital, "-n", 100) == (0, RECITED + "\n", "")


START = """
import os, sys
from nbgpt.cli.main import main

main(sys.argv[1:])
slow = {"lm_eval", "numba", "llvmlite", "importlib.metadata", "subprocess", "tempfile", "tqdm", "huggingface_hub"}
print(sorted((slow | {"prompt_toolkit"}) & {*sys.modules}), len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads as Linux lists them")
def test_a_start_loads_no_compiler_and_starts_no_threads_but_its_own(recital):
    command = [sys.executable, "-c", START, "generate", "-q", "--model", recital, "-n", "1", "--threads", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    environment["PYTHONPATH"] = os.pathsep.join(["", *sys.path])
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines()[1] == "[] 1"


def test_a_last_line_that_is_whole_stays_as_it_is(run, folder):
    path = write_text_model(folder / "line.safetensors", *reciter("a line\n"))
    assert run("generate", "-q", "--model", path, "-n", 50)[1] == "a line\n"


def test_sources_of_the_prompt(run, chatter, tmp_path):
    prompt = "Naïve café 😀"
    (tmp_path / "prompt.txt").write_text(prompt + "\n")
    options = ("--echo", "--seed", 1, "-n", 20, "--model", chatter)
    ways = [
        run("generate", prompt, *options),
        run("generate", *options, stdin=prompt.encode() + b"\n"),
        run("generate", "-", *options, stdin=prompt.encode()),
        run("generate", "--file", tmp_path / "prompt.txt", *options),
        run("generate", "--file", "-", *options, stdin=prompt.encode()),
    ]
    assert all(way[:2] == ways[0][:2] for way in ways)
    assert ways[0][1].startswith(prompt)
    assert len(ways[0][1]) > len(prompt) + 20


@pytest.mark.parametrize("arguments", [("",), ()])
def test_an_empty_prompt_begins_with_the_end_of_text(run, recital, arguments):
    code, out, err = run("generate", *arguments, "--model", recital, "--no-bos", "-n", 100)
    assert (code, out, FIGURES.fullmatch(err)["prompt"]) == (0, RECITED + "\n", "1")


def test_no_standard_input_is_an_empty_prompt(run, recital, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["generate", "-q", "-n", "100", "--model", recital]) == 0
    assert capsys.readouterr() == (RECITED + "\n", "")


def test_bos(run, chatter):
    n_tokens = len(TOKENIZER.encode("Once"))
    for flags, n_more in (((), 1), (("--bos",), 1), (("--no-bos",), 0)):
        _, _, err = run("generate", "Once", "--model", chatter, "-n", 1, *flags)
        assert FIGURES.fullmatch(err)["prompt"] == str(n_tokens + n_more)


def test_a_seed_can_be_used_again(run, chatter):
    _, first, err = run("generate", "--model", chatter)
    seed = FIGURES.fullmatch(err)["seed"]
    assert run("generate", "--model", chatter, "--seed", seed, "--threads", 2)[1] == first
    assert run("generate", "--model", chatter)[1] != first


def test_samples(run, chatter):
    code, out, err = run("generate", "--model", chatter, "--num-samples", 3, "--seed", 5, "-n", 30)
    texts = out.split("---\n")
    assert (code, len(texts), len(set(texts))) == (0, 3, 3)
    assert all(text.endswith("\n") for text in texts)
    assert [match["seed"] for match in FIGURES.finditer(err)] == ["5"] * 3
    assert run("generate", "--model", chatter, "--seed", 5, "-n", 30)[1] == texts[0]


def test_sampling_options_reach_the_model(run, chatter):
    for options in (["--greedy"], ["--top-k", 1], ["--top-p", 0.01], ["--temperature", 0]):
        assert run("generate", "-q", "-n", 100, "--model", chatter, *options)[1] == " the" * 100 + "\n"
    wild = run("generate", "-q", "-n", 100, "--model", chatter, "--temperature", 1000, "--top-k", 0, "--seed", 2)[1]
    assert len(set(wild.split())) > 30


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("interrupted", [(Request, "take"), (Writer, "update")])  # within a step, and after it
def test_control_c_keeps_the_json_so_far(run, chatter, monkeypatch, samples, interrupted):
    where, name = interrupted
    method, n_calls = getattr(where, name), itertools.count(1)

    def interrupt(self, *arguments):
        method(self, *arguments)
        if next(n_calls) == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(where, name, interrupt)
    options = ["--json", "--echo", "--num-samples", samples, "--overflow", "truncate_left"]
    code, out, err = run("generate", "Once", "--model", chatter, "-n", 10**9, *options)
    assert code == 130
    texts = [json.loads(line) for line in out.splitlines()]
    assert [text["finish_reason"] for text in texts] == ["cancelled"] * samples
    assert all(text["text"].startswith("Once") and text["usage"]["completion_tokens"] > 0 for text in texts)
    assert len(FIGURES.findall(err)) == samples


def test_overflow(run, chatter, fails):
    code, line = fails("generate", "Once", "--model", chatter, "-n", 300)
    assert code == 2
    assert "new ones need" in line
    assert "this model's context is 200" in line
    code, _, err = run("generate", "Once", "--model", chatter, "-n", 300, "--overflow", "truncate_left")
    assert (code, FIGURES.fullmatch(err)["new"]) == (0, "300")


# Processes of their own


def test_a_program(recital):
    process = start("generate", "-n", 100, "--model", recital, env={"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, RECITED + "\n")
    assert FIGURES.fullmatch(err)


def test_control_c_keeps_the_text_so_far(chatter):
    process = start("generate", "--model", chatter, "-n", 10**9, "--overflow", "truncate_left")
    first = process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    out = first + process.stdout.read()
    assert process.wait(timeout=60) == 130
    assert len(out) >= 10
    assert out.endswith("\n")
    assert FIGURES.fullmatch(process.stderr.read())


def test_a_reader_that_has_seen_enough(chatter):
    """As in `| head -1`."""
    process = start("generate", "-q", "--model", chatter, "-n", 10**9, "--overflow", "truncate_left")
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")  # noqa: PTH110
@pytest.mark.parametrize("command", ["generate", "info"])
def test_standard_output_to_a_full_disk(recital, command):
    model = ["--model", recital] if command == "generate" else [recital]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        process = start(command, *model, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "nbgpt: standard output: No space left on device\n"


def test_no_standard_streams_at_all(recital):
    closed = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', sys.executable, "-m", "nbgpt", "generate", "--model", recital]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["", *sys.path])}
    assert subprocess.run(closed, env=environment, timeout=60, check=False).returncode == 0


# Bad input: usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND; `python -m nbgpt --help` explains"),
        (["write"], "there is no command 'write'; `python -m nbgpt --help` explains"),
        (["genrate"], "there is no command 'genrate'; did you mean 'generate'?; `"),
        (["eval", "perplexty"], "there is no command 'perplexty'; did you mean 'perplexity'?; `"),
        (["generate", "--lenght=3"], "unrecognized arguments: --lenght=3"),
        (["info", "a", "b\nc"], "unrecognized arguments: b c"),
        (["generate", "-n", "many"], "argument -n/--max-tokens: invalid int value: 'many'"),
        (["generate", "--dtype", "int2"], "argument --dtype: invalid choice: 'int2'"),
        (["generate", "--overflow", "wrap"], "argument --overflow: invalid choice: 'wrap'"),
        (["eval"], "the following arguments are required: MEASURE; `python -m nbgpt eval --help` explains"),
        (["eval", "perplexity"], "the following arguments are required: file"),
        (["convert"], "the following arguments are required: source"),
        (["bench", "--n-gen", "some"], "argument -n/--n-gen: 'some' is no list of whole numbers, as 1,2,4"),
    ],
)
def test_wrong_usage(fails, arguments, message):
    code, line = fails(*arguments)
    assert code == 2
    assert message in line
    assert line.endswith("--help` explains")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-n", 0], "--max-tokens is 0; it must be a whole number from 1 on"),
        (["--num-samples", 0], "num-samples is 0; it must be at least 1"),
        (["--temperature", -1], "--temperature is -1.0; it must be from 0 (greedy) to 10^9"),
        (["--temperature", "nan"], "--temperature is nan; it must be from 0 (greedy) to 10^9"),
        (["--top-k", -1], "--top-k is -1; it must be a whole number from 0 (off) to 2^31 - 1"),
        (["--top-p", 0], "--top-p is 0.0; it must be above 0 and at most 1 (off)"),
        (["--seed", -1], "--seed is -1; it must be a whole number from 0 to 2^64 - 1"),
        (["--threads", 0], "threads is 0; it must be from 1 to 512"),
        (["--threads", 100_000], "threads is 100000; it must be from 1 to 512"),
        (["--file", "x"], "a prompt and --file are given; choose one"),
    ],
)
def test_values_out_of_range(fails, recital, options, message):
    assert fails("generate", "Once", "--model", recital, *options) == (2, message)


def test_a_prompt_that_is_too_long(fails, recital):
    n_tokens = len(TOKENIZER.encode("word " * 200))
    code, line = fails("generate", "word " * 200, "--model", recital)
    assert code == 2
    assert line.startswith(f"prompt of {n_tokens} tokens and 1 new ones need {n_tokens} positions; ")
    assert "this model's context is 120" in line


def test_a_model_that_is_not_there(fails, tmp_path):
    assert fails("generate", "--model", "stroy-34m")[1].endswith("did you mean story-34m?")
    code, line = fails("info", tmp_path / "none.safetensors")
    assert code == 2
    assert line.startswith(f"no file, folder or model is called '{tmp_path}/none.safetensors'")


def test_another_dtype_than_the_files(fails, recital):
    code, line = fails("generate", "--model", recital, "--dtype", "int8")
    assert (code, "holds float32 and you asked for int8" in line, "nbgpt convert" in line) == (2, True, True)


# Bad input: text


def test_text_that_is_not_utf_8(fails, recital, tmp_path):
    cure = "convert it, for example with iconv"
    (tmp_path / "latin-1.txt").write_bytes("Ein schöner Tag".encode("latin-1"))
    line = fails("generate", "--model", recital, stdin=b"abc\xff")
    assert line == (1, f"standard input is not UTF-8 (byte 0xff at 3): {cure}")
    line = fails("generate", "--model", recital, "-f", tmp_path / "latin-1.txt")
    assert line == (1, f"{tmp_path}/latin-1.txt is not UTF-8 (byte 0xf6 at 7): {cure}")
    line = fails("eval", "perplexity", tmp_path / "latin-1.txt", "--model", recital)
    assert line == (1, f"{tmp_path}/latin-1.txt is not UTF-8 (byte 0xf6 at 7): {cure}")
    line = fails("generate", os.fsdecode(b"abc\xff"), "--model", recital)
    assert line == (1, f"the prompt is not UTF-8 (byte 0xff at 3): {cure}")


def test_files_that_cannot_be_read(fails, recital, tmp_path):
    for arguments in (["generate", "-f"], ["eval", "perplexity"]):
        expected = (1, f"{tmp_path}/none: No such file or directory")
        assert fails(*arguments, tmp_path / "none", "--model", recital) == expected
        assert fails(*arguments, tmp_path, "--model", recital) == (1, f"{tmp_path}: Is a directory")


# Bad input: weights


def test_native_files_that_are_damaged(fails, recital, tmp_path):
    path, header = tmp_path / "m.safetensors", (2**40).to_bytes(8, "little") + b"{}"
    with open(recital, "rb") as file:  # noqa: PTH123
        whole = file.read()
    for data, message in ((whole[:-1], "cut short?"), (b"", "cut short"), (header, "claims a header")):
        path.write_bytes(data)
        for command in (["generate", "--model", path], ["info", path]):
            code, line = fails(*command)
            assert (code, line.startswith(f"{path}: "), message in line) == (1, True, True)


def test_messages_carry_no_control_characters(fails, official):
    folder = official(files={"config.json": json.dumps({"model_type": "gpt\x1b[31m\n2"}).encode()})
    assert "\x1b" not in fails("convert", folder)[1]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (nbgpt.KernelError("cannot compile"), 1, "cannot compile"),
        (MemoryError("too large"), 1, "out of memory: too large; take a smaller model or another --dtype"),
        (OSError("something"), 1, "something"),
    ],
)
def test_other_failures(fails, monkeypatch, error, code, message):
    def open_model(*arguments):
        raise error

    monkeypatch.setattr(registry, "open_model", open_model)
    assert fails("info") == (code, message)


def test_a_mistake_of_ours_is_not_hidden(run, monkeypatch):
    monkeypatch.setattr(registry, "open_model", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("info")


# The other commands


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_help(run, command):
    code, out, err = run(*command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(" ".join(["usage: python -m nbgpt", *command]))
    if not command:
        assert set(re.findall(r"\n    (\S+)", out)) == set(COMMANDS)
