"""Each program of examples/ as a user would start it."""

import csv
import io
import json
import os
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from starlette.testclient import TestClient

import nbgpt

EXAMPLES = Path(__file__).parent.parent / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(nbgpt.__file__).parent.parent)}  # this nbgpt
LIKELY, UNLIKELY = "He looked at the sea, and he said nothing.", "Looked sea nothing the he at he and said the."


def run(name, *arguments, text=None):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        env=ENVIRONMENT,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_each_explains_itself(path):
    assert "usage:" in run(path.name, "--help")


def test_filter_keeps_what_reads_well(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text(f"{LIKELY}\n\n{UNLIKELY}\n")
    assert run("filter_sentences.py", file, "--above", -5.5) == LIKELY + "\n"
    scored = dict(
        line.split("\t")[::-1] for line in run("filter_sentences.py", file, "--above", -99, "--scores").splitlines()
    )
    assert float(scored[LIKELY]) == pytest.approx(nbgpt.load().score(LIKELY, bos=True).mean, abs=1e-3)


def test_search_finds_the_nearest_line(tmp_path):
    file = tmp_path / "notes.txt"
    lines = ["The ship sailed over the dark sea.", "She baked bread in the kitchen.", "The judge read the sentence."]
    file.write_text("\n".join(lines))
    found = run("semantic_search.py", file, "a ship on the sea").splitlines()
    assert len(found) == 3
    assert found[0].endswith(lines[0])
    assert float(found[0].split("\t")[0]) > float(found[1].split("\t")[0])


def test_authors_writes_a_table_of_two_labels():
    rows = list(csv.DictReader(io.StringIO(run("authors.py"))))
    counts = Counter(row["label"] for row in rows)
    assert counts == {"Baum": 1965, "Wells": 1721}
    assert all(len(row["text"].split()) >= 6 for row in rows)
    assert not [row for row in rows if '"' in row["text"]]


def test_batch_goes_on_where_it_was(tmp_path):
    prompts, texts = tmp_path / "prompts.jsonl", tmp_path / "texts.jsonl"
    requests = [{"prompt": f"Chapter {n}", "max_tokens": 4 + n // 3} for n in range(6)]
    prompts.write_text("".join(json.dumps(request) + "\n" for request in requests))
    run("batch_jsonl.py", prompts, texts, "--batch", 2)
    whole = texts.read_text()
    model = nbgpt.load()
    for request, line in zip(requests, whole.splitlines(), strict=True):
        alone = model.generate(request["prompt"], max_tokens=request["max_tokens"], seed=0)
        assert json.loads(line) == {**request, "text": alone.text, "finish_reason": alone.finish_reason}
    texts.write_text(whole[: len(whole) // 2])  # as if it had been interrupted within a line
    run("batch_jsonl.py", prompts, texts, "--batch", 2)
    assert texts.read_text() == whole


def test_batch_reads_lines_as_json_has_them(tmp_path):
    prompts, texts = tmp_path / "prompts.jsonl", tmp_path / "texts.jsonl"
    requests = [{"prompt": "One\u2028two\x85three", "max_tokens": 2}, {"prompt": "Four", "max_tokens": 2}]
    prompts.write_text("\n\n".join(json.dumps(one, ensure_ascii=False) for one in requests), encoding="utf-8")
    run("batch_jsonl.py", prompts, texts)
    answers = [json.loads(line) for line in texts.read_text(encoding="utf-8").rstrip("\n").split("\n")]
    assert [answer["prompt"] for answer in answers] == [request["prompt"] for request in requests]


@pytest.mark.parametrize(
    ("line", "batch", "message"),
    [
        (
            '{"prompt": "a", "n": 2}',
            8,
            'prompts.jsonl, line 2: expected an object with "prompt", a text, and without "n"',
        ),
        ('{"prompt": ["a"]}', 8, "prompts.jsonl, line 2: expected an object"),
        ("[]", 8, "prompts.jsonl, line 2: expected an object"),
        ("{", 8, "prompts.jsonl, line 2: Expecting property name"),
        ("", 0, "--batch is 0; it must be at least 1"),
        ("", -1, "--batch is -1; it must be at least 1"),
    ],
)
def test_batch_refuses_before_it_begins(tmp_path, line, batch, message):
    prompts, texts = tmp_path / "prompts.jsonl", tmp_path / "texts.jsonl"
    prompts.write_text(f'{{"prompt": "a"}}\n{line}\n')
    command = [sys.executable, EXAMPLES / "batch_jsonl.py", prompts, texts, f"--batch={batch}"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode > 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not texts.exists()


def test_bot_answers_when_it_is_spoken_to():
    said = run("bot.py", "--seed", 1, text="Anna: Good evening.\n\nAnna: What do you see, Holmes?\nit rains\n")
    assert said.count("\n") == 1
    assert said.startswith("Holmes: ")
    assert len(said) > len("Holmes: \n")


def test_page_is_served_and_completes():
    server = subprocess.Popen(
        [sys.executable, EXAMPLES / "web_completer.py", "--port", "0"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = server.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        with urlopen(address, timeout=30) as page:
            assert b"<textarea" in page.read()
        with urlopen(Request(f"{address}/complete", json.dumps({"text": "Once upon"}).encode()), timeout=60) as answer:
            assert len(answer.read().decode().split()) > 5
        for wrong in ({"text": ["a", "b"]}, {"text": 5}, {}, []):
            with pytest.raises(HTTPError, match="400"):
                urlopen(Request(f"{address}/complete", json.dumps(wrong).encode()), timeout=30)
    finally:
        server.terminate()
        server.wait(10)


def test_a_server_is_mounted_into_another_application():
    mine = runpy.run_path(str(EXAMPLES / "mounted_server.py"))["mine"]
    body = {"prompt": "Once upon", "max_tokens": 5, "seed": 1}
    with TestClient(mine, base_url="http://localhost") as client:
        assert len(client.get("/").json()["text"]) > 5
        assert "<html" in client.get("/gpt2/").text
        answer = client.post("/gpt2/v1/completions", json=body).json()
    assert answer["choices"][0]["text"] == nbgpt.load().generate("Once upon", max_tokens=5, seed=1).text
