"""`info`: every fact of a model, and nothing that a hostile file puts in."""

import json
import os

from folders import TOKENIZER, reciter, write_folder, write_text_model

from nbgpt.abi.targets import amx_obstacle


def test_info(run, chatter):
    code, out, err = run("info", chatter)
    assert (code, err) == (0, "")
    facts = dict(line.split(None, 1) for line in out.splitlines())
    assert list(facts) == [
        *["model", "file", "size", "dtype", "config", "variant"],
        *["vocabulary", "bos", "eos", "source"],
        *["CPU", "AMX", "threads", "kernels", "cache", "versions"],
    ]
    assert (facts["model"], facts["file"], facts["dtype"]) == ("chatter", chatter, "float32")
    assert facts["config"] == f"n_layer 1, n_head 3, n_embd 48, n_inner 192, n_ctx 200, n_vocab {TOKENIZER.n_vocab}"
    assert facts["vocabulary"] == "1000 tokens: of vocab.json and merges.txt"
    assert facts["bos"] == "texts begin with <|endoftext|>"
    assert facts["eos"] == "texts end with <|endoftext|> (2)"
    obstacle = amx_obstacle()
    assert facts["AMX"] == (
        f"not used: {obstacle}" if obstacle else "used for prompts and batches with bfloat16, int8 and int4"
    )
    assert facts["kernels"].startswith(("shipped: ", "cached: ", "to be compiled: "))
    assert facts["kernels"].endswith(f".o, for {facts['CPU']}")
    assert facts["cache"] == os.environ["NBGPT_HOME"]
    assert all(name in facts["versions"] for name in ("nbgpt 0.", "Python 3.", "numba 0.", "numpy ", "tiktoken "))


def test_ends_and_defaults_of_the_makers(run, folder):
    path = write_folder(folder / "made", *reciter("x"))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "eos_token_id": 7, "bos_token_id": 3}))
    generation = {"eos_token_id": [2, 5], "temperature": 0.6, "top_k": 5, "transformers_version": "4.1.0"}
    (path / "generation_config.json").write_text(json.dumps(generation))
    (path / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    code, out, err = run("info", path)
    assert (code, err) == (0, "nbgpt: made has the vocabulary of vocab.json and merges.txt\n")
    facts = dict(line.split(None, 1) for line in out.replace("not applied", "not-applied").splitlines())
    names = {token: TOKENIZER.decode([token], skip_special=False) for token in (2, 3, 5)}
    assert facts["eos"] == f"texts end with {names[2]} (2) or {names[5]} (5)"
    assert facts["bos"] == f"texts begin with {names[3]}"
    assert facts["not-applied"] == "temperature 0.6, top_k 5"


def test_info_of_a_file_with_a_hostile_name(run, folder):
    config, params = reciter("x")
    path = write_text_model(folder / "\x1b[31m.safetensors", config, params)
    assert "\x1b" not in run("info", path)[1]
